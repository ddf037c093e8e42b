"""The subjects of the manifests that are in the recycle bin already."""

from django.db import migrations

_FILL = """
UPDATE namespaces_recyclebinentry SET subject_digest = (
    SELECT m.subject_digest FROM catalog_manifest m WHERE m.image_id = namespaces_recyclebinentry.row_id LIMIT 1
)
WHERE kind = 'manifest' AND (
    SELECT m.id FROM catalog_manifest m
    WHERE m.image_id = namespaces_recyclebinentry.row_id AND m.subject_digest <> '' LIMIT 1
) IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("catalog", "0024_pushed_again"), ("namespaces", "0011_referrers_in_the_bin")]

    operations = [migrations.RunSQL(_FILL, migrations.RunSQL.noop)]
