"""The time, in one place; services take it as an argument where a rule depends on it."""

from datetime import UTC, datetime


def now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)
