from django.db import migrations


class Migration(migrations.Migration):
    """By itself, so that the table is not locked while its rows are updated."""

    dependencies = [
        ('namespaces', '0012_deleted_by_a_rule'),
    ]

    operations = [
        # Until now the name decided, which a user may have as well.
        migrations.RunSQL(
            "UPDATE namespaces_recyclebinentry SET is_by_rule = TRUE"
            " WHERE kind = 'manifest' AND deleted_by = 'system'",
            migrations.RunSQL.noop,
        ),
    ]
