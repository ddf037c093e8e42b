"""States of blobs whose content is damaged or missing (ADR 64), and the order in which content is verified.

The new unique index is created before the old one is dropped, so that no digest ever has two current rows.
Backwards, damaged and missing blobs become live again: earlier releases know no other state to keep them in.
"""

from django.db import migrations, models
from django.db.models.functions import Coalesce


def make_live(apps, schema_editor):
    apps.get_model("catalog", "Blob").objects.filter(state__in=["damaged", "missing"]).update(state="live")


class Migration(migrations.Migration):
    dependencies = [("catalog", "0016_last_pulled")]

    operations = [
        migrations.RunPython(migrations.RunPython.noop, make_live),
        migrations.AddConstraint(
            model_name="blob",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state", "deleting"), _negated=True),
                fields=("digest",),
                name="blob_digest_current",
            ),
        ),
        migrations.RemoveConstraint(model_name="blob", name="blob_digest_live"),
        migrations.AlterField(
            model_name="blob",
            name="state",
            field=models.CharField(
                choices=[
                    ("live", "Live"),
                    ("damaged", "Damaged"),
                    ("missing", "Missing"),
                    ("deleting", "Deleting"),
                ],
                default="live",
                max_length=16,
            ),
        ),
        migrations.AddField(
            model_name="blob",
            name="verified_at",
            field=models.DateTimeField(
                help_text="When the stored content was hashed last; null: not since its upload.", null=True
            ),
        ),
        migrations.AddIndex(
            model_name="blob",
            index=models.Index(
                Coalesce("verified_at", "created_at"),
                models.F("id"),
                condition=models.Q(("state", "live")),
                name="blobs_to_verify",
            ),
        ),
    ]
