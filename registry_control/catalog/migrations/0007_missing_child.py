"""The model of children that an index lists and the image does not have gets the name that the code uses."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalog", "0006_untouched_blobs")]

    operations = [
        migrations.RenameModel("AwaitedChild", "MissingChild"),
        migrations.RemoveConstraint("missingchild", "awaited_child_once"),
        migrations.AlterField(
            "missingchild",
            "image",
            models.ForeignKey(
                db_index=False,
                on_delete=models.PROTECT,
                related_name="missing_children",
                to="catalog.image",
            ),
        ),
        migrations.AddConstraint(
            "missingchild", models.UniqueConstraint(fields=["parent", "digest"], name="missing_child_once")
        ),
    ]
