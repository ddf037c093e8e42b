"""A finding whose blob was deleted, or whose content was found in another state, was not healed.

Backwards, such findings are healed: earlier releases know no other end.
"""

from django.db import migrations, models


def call_healed(apps, schema_editor):
    dropped = apps.get_model("integrity", "BlobFault").objects.filter(dropped_at__isnull=False)
    dropped.update(healed_at=models.F("dropped_at"))


class Migration(migrations.Migration):
    dependencies = [("integrity", "0003_two_looks")]

    operations = [
        migrations.RemoveConstraint(model_name="blobfault", name="open_fault_of_blob"),
        migrations.AddField(
            model_name="blobfault",
            name="dropped_at",
            field=models.DateTimeField(
                help_text="When it ended without that: the blob was deleted, or found in the other state.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="blobfault",
            name="healed_at",
            field=models.DateTimeField(help_text="When the blob got its content back.", null=True),
        ),
        migrations.RunPython(migrations.RunPython.noop, call_healed),
        migrations.AddConstraint(
            model_name="blobfault",
            constraint=models.UniqueConstraint(
                condition=models.Q(("dropped_at__isnull", True), ("healed_at__isnull", True)),
                fields=("blob_id",),
                name="open_fault_of_blob",
            ),
        ),
    ]
