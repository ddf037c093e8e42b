import uuid

from django.db import migrations, models

FILL_IMAGES = """
UPDATE catalog_image SET
  organization_id = (
    SELECT p.organization_id FROM namespaces_namespace n JOIN identity_project p ON p.id = n.project_id
    WHERE n.id = catalog_image.namespace_id
  ),
  tag_rows = (SELECT COUNT(*) FROM catalog_tag t WHERE t.image_id = catalog_image.id)
"""
FILL_NAMESPACES = """
UPDATE namespaces_namespace
SET image_rows = (SELECT COUNT(*) FROM catalog_image i WHERE i.namespace_id = namespaces_namespace.id)
"""


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0004_uploads_of_a_principal'),
        ('namespaces', '0003_image_rows'),
    ]

    operations = [
        migrations.AddField(
            model_name='image',
            name='tag_rows',
            field=models.BigIntegerField(default=0, editable=False, help_text='Rows of its tags, of every status.'),
        ),
        migrations.AddField(
            model_name='image',
            name='organization_id',
            field=models.UUIDField(default=uuid.UUID(int=0), editable=False),
            preserve_default=False,
        ),
        migrations.RunSQL(FILL_IMAGES, migrations.RunSQL.noop),
        migrations.RunSQL(FILL_NAMESPACES, migrations.RunSQL.noop),
        migrations.RemoveIndex(
            model_name='image',
            name='images_never_pushed',
        ),
        migrations.AddIndex(
            model_name='image',
            index=models.Index(condition=models.Q(('pushed_at__isnull', True)), fields=['organization_id', 'namespace', 'created_at'], name='images_never_pushed'),
        ),
        migrations.AddIndex(
            model_name='image',
            index=models.Index(fields=['organization_id', 'created_at', 'id', 'pushed_at'], name='images_of_organization'),
        ),
        migrations.AddIndex(
            model_name='image',
            index=models.Index(fields=['organization_id', 'name'], name='images_by_name'),
        ),
    ]
