from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("namespaces", "0003_image_rows"),
    ]

    operations = [
        migrations.AlterField(
            model_name="namespace",
            name="accepts_sparse_indexes",
            field=models.BooleanField(
                default=False,
                help_text="Whether an index may be pushed while manifests of some platforms are missing.",
            ),
        ),
        migrations.AlterField(
            model_name="namespace",
            name="image_rows",
            field=models.BigIntegerField(
                default=0,
                editable=False,
                help_text="Number of its images in every status, including images without a push.",
            ),
        ),
        migrations.AlterField(
            model_name="namespace",
            name="is_public",
            field=models.BooleanField(
                default=False, help_text="Whether anyone may pull the images that inherit its policy."
            ),
        ),
    ]
