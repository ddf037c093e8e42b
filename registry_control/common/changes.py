"""The change log: which cached responses of the data plane a transaction makes out of date (ADR 43).

A service that changes what a pull returns calls `record_change` in its own transaction, with the scopes that
it changed. Data processes read the log (`change_feed`) and evict what depends on those scopes.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import connection, transaction

from registry_control.common.models import Change
from registry_control.db.functions import DatabaseNow
from registry_control.db.sql import execute

RETENTION: Final = timedelta(hours=1)
EVERYTHING: Final = "all"
"""Every cached response: for rare changes whose effect has no narrower scope."""

_HORIZON: Final = "pruned:"
_COLUMNS: Final = "INSERT INTO common_change (scope, transaction_id, created_at) VALUES "
_POSTGRESQL_ROW: Final = "(%s, pg_current_xact_id()::text::bigint, statement_timestamp())"
_SQLITE_ROW: Final = "(%s, 0, statement_timestamp())"


def organization_scope(organization_id: UUID | str) -> str:
    """The rights of every principal of an organization: its keys, users, applications and policies."""
    return f"organization:{_hex(organization_id)}"


def repositories_scope(organization_id: UUID | str) -> str:
    """The names that an organization's principals find in the catalog listing."""
    return f"repositories:{_hex(organization_id)}"


def namespace_scope(namespace_id: UUID | str) -> str:
    """A namespace's own row: its privacy policy, owner and status."""
    return f"namespace:{_hex(namespace_id)}"


def image_scope(image_id: UUID | str) -> str:
    """An image with its visibility, status, tags, manifests, referrers and linked blobs."""
    return f"image:{_hex(image_id)}"


def _hex(value: UUID | str) -> str:
    return value if isinstance(value, str) else value.hex


def record_change(*scopes: str) -> None:
    """Record, in the transaction that makes it, a change of what depends on these scopes.

    Raises:
        RuntimeError: outside a transaction, where a reader could see the change before its record.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("record_change needs the transaction that makes the change")
    row = _SQLITE_ROW if connection.vendor == "sqlite" else _POSTGRESQL_ROW
    execute(_COLUMNS + ", ".join([row] * len(scopes)), scopes)


def pruned_up_to(scope: str) -> int | None:
    """The horizon that a scope of the log stands for: rows up to it may be missing. None for other scopes."""
    return int(scope.removeprefix(_HORIZON)) if scope.startswith(_HORIZON) else None


@transaction.atomic
def prune_changes(*, limit: int) -> int:
    """Delete up to `limit` rows older than RETENTION; returns how many.

    The same transaction records the horizon: a process that has not read all of the deleted rows finds that
    record instead, and evicts everything. So the clock decides only when a row goes, never what is fresh.
    """
    old = Change.objects.filter(created_at__lt=DatabaseNow() - RETENTION).order_by("id").select_for_update()
    doomed = list(old.values_list("id", "transaction_id")[:limit])
    if not doomed:
        return 0
    Change.objects.filter(pk__in=[pk for pk, _ in doomed]).delete()
    on_sqlite = connection.vendor == "sqlite"
    record_change(f"{_HORIZON}{max(pk if on_sqlite else xid for pk, xid in doomed)}")
    return len(doomed)
