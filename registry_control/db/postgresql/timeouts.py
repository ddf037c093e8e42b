"""Limits on waiting for locks and on idle transactions, set on each connection (ADR 33).

PostgreSQL's defaults are unlimited: one client that vanishes in a transaction blocks every request for the
rows that it locked, and in time every thread of the process.
"""

from typing import Any, Final

import psycopg

from registry_control.db.postgresql.prepared import Connection

# Set by a statement, not by connection parameters: PgBouncer refuses connections with parameters that it does
# not know. Values of the URL, role or database have precedence. Server-wide values do not: some managed
# services ship an idle_in_transaction_session_timeout of one day.
_SET: Final = """
SELECT set_config(name, value, false)
FROM (VALUES ('lock_timeout', '10s'), ('idle_in_transaction_session_timeout', '30s')) AS ours (name, value)
JOIN pg_settings AS present USING (name)
WHERE present.source NOT IN ('client', 'user', 'database', 'database user')
"""
# Also those that only an operator sets. PostgreSQL has transaction_timeout since version 17.
_DISABLE: Final = """
SELECT set_config(name, '0', {is_local}) FROM pg_settings WHERE name IN (
    'lock_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout', 'transaction_timeout'
)
"""
DISABLE_IN_TRANSACTION: Final = _DISABLE.format(is_local="true")
"""A statement that removes all timeouts until the end of the transaction."""


def connect(parameters: dict[str, Any]) -> Connection:
    """Connect in autocommit mode, with the timeouts set.

    Raises:
        psycopg.Error: the server cannot be reached or refuses the connection.
    """
    connection: Connection = psycopg.connect(**parameters, autocommit=True)
    try:
        apply(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def apply(connection: Connection) -> None:
    """Set both timeouts on a connection in autocommit mode, unless its URL, role or database sets them."""
    connection.execute(_SET)


def disable(connection: Connection) -> None:
    """Remove all timeouts on a connection in autocommit mode, whoever set them."""
    connection.execute(_DISABLE.format(is_local="false"))
