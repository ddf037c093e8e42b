"""The current time. Services take it as an argument where a rule depends on it.

Times that several nodes compare, those of leases and of the review queue, are times of the database: the
clocks of the nodes may differ (ADR 66).
"""

from datetime import UTC, datetime

from registry_control.db.sql import row, time_from_db


def now() -> datetime:
    """The current time in UTC by the clock of this node, timezone-aware."""
    return datetime.now(UTC)


def database_now() -> datetime:
    """The current time by the clock of the database server; with SQLite, of this machine."""
    found = row("SELECT statement_timestamp()", [])
    if found is None:
        raise RuntimeError("a SELECT without FROM returns one row")
    return time_from_db(found[0])
