from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('namespaces', '0002_sparse_indexes'),
    ]

    operations = [
        migrations.AddField(
            model_name='namespace',
            name='image_rows',
            field=models.BigIntegerField(default=0, editable=False, help_text='Rows of its images, of every status, pushed to or not.'),
        ),
    ]
