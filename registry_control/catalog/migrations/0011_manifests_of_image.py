"""Manifests of an image are listed by time; referrers have had a table of their own since 0008."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0010_untagged_size")]

    operations = [
        migrations.RemoveIndex("manifest", "manifest_referrers"),
        migrations.AddIndex(
            "manifest",
            models.Index(fields=["image", "created_at", "id"], name="manifests_of_image"),
        ),
    ]
