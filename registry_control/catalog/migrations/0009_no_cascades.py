"""Rows that depend on a manifest are deleted by SQL, never by Django's cascade (no change of the schema)."""

import django.db.models.deletion
from django.db import migrations, models

_FIELDS = [
    ("manifestchild", "parent", "children", False),
    ("manifestchild", "child", "parents", True),
    ("missingchild", "parent", "awaited", False),
    ("tag", "manifest", "tags", True),
    ("bloblink", "manifest", "blob_links", False),
]


class Migration(migrations.Migration):
    dependencies = [("catalog", "0008_referrers")]

    operations = [
        migrations.AlterField(
            model,
            field,
            models.ForeignKey(
                db_index=indexed,
                on_delete=django.db.models.deletion.PROTECT,
                related_name=related,
                to="catalog.manifest",
            ),
        )
        for model, field, related, indexed in _FIELDS
    ]
    operations.append(
        migrations.AlterField(
            "referrer",
            "manifest",
            models.OneToOneField(
                on_delete=django.db.models.deletion.PROTECT,
                primary_key=True,
                related_name="referrer",
                serialize=False,
                to="catalog.manifest",
            ),
        )
    )
