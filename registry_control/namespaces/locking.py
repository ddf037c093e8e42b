"""Locking and unlocking of namespaces and images by an administrator."""

from collections.abc import Collection

from registry_control.audit.services import Actor, Target, record
from registry_control.common.changes import record_change
from registry_control.common.clock import now
from registry_control.common.models import Lockable, Status


def set_locked(
    row: Lockable, *, is_locked: bool, actor: Actor, target: Target, scopes: Collection[str]
) -> bool:
    """Lock or unlock a row that the transaction holds with FOR UPDATE; pulls continue.

    Returns whether the status changed. Rows that are being deleted, and rows in the wanted status, stay as
    they are.
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
