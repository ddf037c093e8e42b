from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0013_queue_unreferenced_blobs"),
    ]

    operations = [
        migrations.AlterField(
            model_name="image",
            name="size_is_stale",
            field=models.BooleanField(
                default=False, editable=False, help_text="Whether the sizes wait for a recount by the worker."
            ),
        ),
        migrations.AlterField(
            model_name="image",
            name="tag_rows",
            field=models.BigIntegerField(
                default=0, editable=False, help_text="Number of its tags in every status."
            ),
        ),
        migrations.AlterField(
            model_name="uploadsession",
            name="is_open",
            field=models.BooleanField(
                default=True,
                help_text="If not, the upload can no longer become a blob, and the worker deletes it.",
            ),
        ),
    ]
