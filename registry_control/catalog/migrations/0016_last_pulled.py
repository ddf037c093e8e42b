"""When images, manifests and tags were last pulled; a nullable column is added without rewriting the table."""

from django.db import migrations, models

_LAST_PULLED = models.DateTimeField(
    null=True, editable=False, help_text="Exact to an hour; empty if never pulled since this is recorded."
)


class Migration(migrations.Migration):
    dependencies = [("catalog", "0015_missing_children")]

    operations = [
        migrations.AddField("image", "last_pulled_at", _LAST_PULLED),
        migrations.AddField("manifest", "last_pulled_at", _LAST_PULLED.clone()),
        migrations.AddField("tag", "last_pulled_at", _LAST_PULLED.clone()),
    ]
