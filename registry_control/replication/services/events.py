"""Records pushes for the rules with `on_push`, in the transaction of the push.

One statement that inserts nothing without such a rule, and no message: the beat runs the task that turns the
rows into executions every few seconds. So neither the broker nor the worker can fail or delay a push, and an
event is as durable as its push.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from registry_control.db.sql import execute, id_parameter

_INSERT: Final = """
INSERT INTO replication_pushevent (rule_id, image_id, digest, tag)
SELECT r.id, i.id, %s, %s
FROM catalog_image i
JOIN replication_rule r ON r.namespace_id = i.namespace_id
WHERE i.id = %s AND r.on_push AND r.enabled AND r.deleted_at IS NULL
"""


def record_push(image_id: UUID, digest: str, tags: Sequence[str]) -> None:
    """Insert an event for each rule of the image's namespace and each tag, or one without a tag."""
    for tag in tags or ("",):
        execute(_INSERT, [digest, tag, id_parameter(image_id)])
