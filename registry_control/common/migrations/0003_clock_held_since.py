from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('common', '0002_clock_watch'),
    ]

    operations = [
        migrations.AddField(
            model_name='clockwatch',
            name='held_since',
            field=models.DateTimeField(null=True),
        ),
    ]
