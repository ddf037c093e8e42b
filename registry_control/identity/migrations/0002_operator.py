"""The organization of the first start operates the installation: it is the oldest one."""

from django.db import migrations, models


def mark_oldest(apps, schema_editor):
    organizations = apps.get_model("identity", "Organization").objects
    oldest = organizations.order_by("created_at", "pk").first()
    if oldest is not None:
        organizations.filter(pk=oldest.pk).update(operates_installation=True)


class Migration(migrations.Migration):
    dependencies = [("identity", "0001_initial")]

    operations = [
        migrations.AddField(
            "organization",
            "operates_installation",
            models.BooleanField(
                default=False,
                editable=False,
                help_text="The organization of the first start: its policies can grant ContainerRegistryOperator.",
            ),
        ),
        migrations.AlterField(
            "policyrule",
            "permission_set",
            models.CharField(
                choices=[
                    ("ContainerRegistryReadOnly", "Read Only"),
                    ("ContainerRegistryPush", "Push"),
                    ("ContainerRegistryFullAccess", "Full Access"),
                    ("ContainerRegistryOperator", "Operator"),
                ],
                max_length=64,
            ),
        ),
        migrations.RunPython(mark_oldest, migrations.RunPython.noop),
    ]
