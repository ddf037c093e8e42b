from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0014_help_texts'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='missingchild',
            options={'verbose_name_plural': 'missing children'},
        ),
    ]
