"""Blobs that lost their last reference before the review queue existed are queued (ADR 52).

Their grace period counts from the migration. Each batch is a transaction of its own; an interrupted migration
starts again and skips what is queued.
"""

from django.db import migrations
from django.utils import timezone

BATCH = 5000
_LAST = "SELECT MAX(id) FROM (SELECT id FROM catalog_blob WHERE id > %s ORDER BY id LIMIT %s) AS batch"
_QUEUE = """
INSERT INTO catalog_blobreview (blob_id, cause, unreferenced_since, attempts, error)
SELECT b.id, 'manifest deleted', %s, 0, '' FROM catalog_blob b
WHERE b.id > %s AND b.id <= %s AND b.state = 'live'
  AND NOT EXISTS (SELECT 1 FROM catalog_bloblink k WHERE k.blob_id = b.id)
  AND NOT EXISTS (SELECT 1 FROM catalog_bloblease l WHERE l.blob_id = b.id)
ON CONFLICT (blob_id) DO NOTHING
"""


def queue_unreferenced_blobs(apps, schema_editor):
    connection, after = schema_editor.connection, 0
    moment = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        while True:
            cursor.execute(_LAST, [after, BATCH])
            (last,) = cursor.fetchone()
            if last is None:
                return
            cursor.execute(_QUEUE, [moment, after, last])
            after = last


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("catalog", "0012_blob_review")]

    operations = [migrations.RunPython(queue_unreferenced_blobs, migrations.RunPython.noop)]
