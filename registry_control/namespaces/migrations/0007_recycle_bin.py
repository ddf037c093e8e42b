import django.db.models.deletion
import django.utils.timezone
import uuid
from django.conf import settings
from django.db import migrations, models


# Reversed first: without a recycle bin, what is in it is deleted for good.
_NOTHING = migrations.RunSQL.noop
_DELETE = "UPDATE namespaces_namespace SET status = 'deleting' WHERE status = 'recycled'"


class Migration(migrations.Migration):

    dependencies = [
        ('identity', '0002_operator'),
        ('namespaces', '0006_pulls_recorded_from'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='RecycleBinEntry',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('tag', 'Tag'), ('manifest', 'Manifest'), ('image', 'Image'), ('namespace', 'Namespace')], max_length=16)),
                ('name', models.CharField(help_text='NAMESPACE, NAMESPACE/IMAGE, NAMESPACE/IMAGE:TAG or NAMESPACE/IMAGE@DIGEST', max_length=512)),
                ('organization_id', models.UUIDField(editable=False)),
                ('object_id', models.UUIDField(help_text='Of what was deleted, as the API names it.')),
                ('image_id', models.UUIDField(db_index=True, help_text='Of the image, or of what was in it.', null=True)),
                ('row_id', models.UUIDField(db_index=True, help_text='Of the namespace or image in status `recycled` that keeps it.', null=True)),
                ('size', models.BigIntegerField(default=0, help_text='Bytes that no size counts any more.')),
                ('deleted_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('deleted_by', models.CharField(help_text='The name of the actor.', max_length=255)),
                ('expires_at', models.DateTimeField(db_index=True)),
                ('is_settled', models.BooleanField(default=False, help_text='Whether the worker has ended the leases and uploads of what was deleted.')),
                ('former_status', models.CharField(choices=[('ready', 'Ready'), ('deleting', 'Deleting'), ('error', 'Error'), ('locked', 'Locked'), ('recycled', 'Recycled')], default='ready', max_length=16)),
                ('pushed_at', models.DateTimeField(help_text='Of the image: hidden images have none.', null=True)),
            ],
            options={
                'verbose_name': 'recycle bin entry',
                'verbose_name_plural': 'recycle bin entries',
            },
        ),
        migrations.RemoveConstraint(
            model_name='namespace',
            name='namespace_name_unique',
        ),
        migrations.AlterField(
            model_name='namespace',
            name='status',
            field=models.CharField(choices=[('ready', 'Ready'), ('deleting', 'Deleting'), ('error', 'Error'), ('locked', 'Locked'), ('recycled', 'Recycled')], default='ready', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='namespace',
            constraint=models.UniqueConstraint(condition=models.Q(('status__in', ('deleting', 'recycled')), _negated=True), fields=('name',), name='namespace_name_unique'),
        ),
        migrations.AddField(
            model_name='recyclebinentry',
            name='namespace',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='recycled', to='namespaces.namespace'),
        ),
        migrations.AddIndex(
            model_name='recyclebinentry',
            index=models.Index(fields=['namespace', 'deleted_at', 'id'], name='recycled_of_namespace'),
        ),
        migrations.AddIndex(
            model_name='recyclebinentry',
            index=models.Index(fields=['organization_id', 'size'], name='recycled_of_organization'),
        ),
        migrations.AddIndex(
            model_name='recyclebinentry',
            index=models.Index(condition=models.Q(('is_settled', False)), fields=['id'], name='recycled_to_settle'),
        ),
        migrations.RunSQL(_NOTHING, _DELETE),
    ]
