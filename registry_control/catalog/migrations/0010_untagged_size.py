"""Sizes of images count what their tags reach; the worker recounts every image that is there already."""

from django.db import migrations, models

_RECOUNT_ALL = "UPDATE catalog_image SET size_is_stale = TRUE WHERE pushed_at IS NOT NULL"
_COUNT_EVERYTHING = "UPDATE catalog_image SET size = size + untagged_size"


class Migration(migrations.Migration):
    dependencies = [("catalog", "0009_no_cascades")]

    operations = [
        migrations.AlterField(
            "image",
            "size",
            models.BigIntegerField(
                default=0,
                editable=False,
                help_text="Bytes of the distinct blobs of manifests that its tags reach.",
            ),
        ),
        migrations.AddField(
            "image",
            "untagged_size",
            models.BigIntegerField(
                default=0,
                editable=False,
                help_text="Bytes of the distinct blobs of its other manifests only.",
            ),
        ),
        migrations.AddField(
            "image",
            "size_is_stale",
            models.BooleanField(
                default=False, editable=False, help_text="Whether the worker has yet to recount the sizes."
            ),
        ),
        migrations.AddField(
            "manifest",
            "is_reachable",
            models.BooleanField(
                default=False, help_text="From a tag: by itself, as a child of an index, or as a referrer."
            ),
        ),
        migrations.AddField("bloblink", "is_reachable", models.BooleanField(default=False)),
        migrations.AddIndex(
            "bloblink",
            models.Index(fields=["image", "blob", "is_reachable"], name="blob_links_reachable"),
        ),
        migrations.RemoveIndex("bloblink", "blob_links_of_image"),
        migrations.RunSQL(_RECOUNT_ALL, _COUNT_EVERYTHING),
        migrations.AddIndex(
            "image",
            models.Index(
                condition=models.Q(("size_is_stale", True)), fields=["id"], name="images_to_recount"
            ),
        ),
    ]
