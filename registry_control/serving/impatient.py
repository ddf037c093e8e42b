"""A database connection for checks, with shorter time-outs than those of requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.db import connection

_TIMEOUTS: Final = {"connect_timeout": 3, "tcp_user_timeout": 5_000}  # seconds, milliseconds


@contextmanager
def impatient_connection() -> Iterator[Any]:
    """A new connection, which is closed at the end. Opening it waits for a server for 3 seconds."""
    own = connection.copy()
    if own.vendor == "postgresql":
        own.settings_dict["OPTIONS"] |= _TIMEOUTS
    try:
        yield own
    finally:
        own.close()
