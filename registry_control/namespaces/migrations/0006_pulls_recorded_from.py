"""Since when pulls are recorded, for the namespaces that exist: their content was pulled before that, too."""

from typing import Any

from django.db import migrations, models
from django.utils import timezone


def set_for_existing(apps: Any, schema_editor: Any) -> None:
    apps.get_model("namespaces", "Namespace").objects.update(pulls_recorded_from=timezone.now())


class Migration(migrations.Migration):
    dependencies = [("namespaces", "0005_retention")]

    operations = [
        migrations.AddField(
            model_name="namespace",
            name="pulls_recorded_from",
            field=models.DateTimeField(
                null=True,
                editable=False,
                help_text="When the registry began to record pulls, for namespaces that are older than that.",
            ),
        ),
        migrations.RunPython(set_for_existing, migrations.RunPython.noop, elidable=True),
    ]
