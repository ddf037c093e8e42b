from django.db import migrations, models


# Reversed first: without a recycle bin, what is in it is deleted for good.
_NOTHING = migrations.RunSQL.noop
_DELETE = "UPDATE catalog_image SET status = 'deleting' WHERE status = 'recycled'"


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0018_untagged_at'),
        ('namespaces', '0007_recycle_bin'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='image',
            name='image_name_in_namespace',
        ),
        migrations.RemoveConstraint(
            model_name='tag',
            name='tag_name_in_image',
        ),
        migrations.AlterField(
            model_name='image',
            name='status',
            field=models.CharField(choices=[('ready', 'Ready'), ('deleting', 'Deleting'), ('error', 'Error'), ('locked', 'Locked'), ('recycled', 'Recycled')], default='ready', max_length=16),
        ),
        migrations.AlterField(
            model_name='tag',
            name='status',
            field=models.CharField(choices=[('ready', 'Ready'), ('deleting', 'Deleting'), ('error', 'Error'), ('locked', 'Locked'), ('recycled', 'Recycled')], default='ready', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='image',
            constraint=models.UniqueConstraint(condition=models.Q(('status__in', ('deleting', 'recycled')), _negated=True), fields=('namespace', 'name'), name='image_name_in_namespace'),
        ),
        migrations.AddConstraint(
            model_name='tag',
            constraint=models.UniqueConstraint(condition=models.Q(('status__in', ('deleting', 'recycled')), _negated=True), fields=('image', 'name'), name='tag_name_in_image'),
        ),
        migrations.RunSQL(_NOTHING, _DELETE),
    ]
