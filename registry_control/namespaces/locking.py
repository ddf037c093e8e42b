"""Locking and unlocking of namespaces and images by an administrator."""

from collections.abc import Collection

from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import record_change
from registry_control.common.clock import now
from registry_control.common.models import Lockable, Status


def set_locked(
    row: Lockable, *, is_locked: bool, actor: Actor, target: Target, scopes: Collection[str]
) -> bool:
    """Make a namespace or image read-only, or writable again; pulls continue.

    The caller has selected the row FOR UPDATE.
    Returns whether the status changed: a row that is being deleted keeps its status.
    """
    before, after = (Status.READY, Status.LOCKED) if is_locked else (Status.LOCKED, Status.READY)
    if row.status != before:
        return False
    row.status = after
    row.updated_at = now()
    row.save(update_fields=["status", "updated_at"])
    record_change(*scopes)
    record(actor=actor, verb=f"{target.kind}.{after.value}", target=target)
    return True
