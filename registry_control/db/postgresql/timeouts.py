"""How long the server lets a connection of ours wait, and lets others wait for it.

Where nothing is said, PostgreSQL waits for a lock, and for a client that vanished in a transaction, for ever:
so one of them stops everybody who wants the same row, and by and by every thread there is.
"""

from typing import Any, Final

import psycopg

from registry_control.db.postgresql.statements import Connection

# By a statement and not in the parameters of the connection: a pooler refuses those that it does not know.
# What was said for this connection, role or database is heard; what is the same for all of a server is no
# word on this registry, and some managed servers come with a day for the second one.
_LIMIT: Final = """
SELECT set_config(name, value, false)
FROM (VALUES ('lock_timeout', '10s'), ('idle_in_transaction_session_timeout', '30s')) AS ours (name, value)
JOIN pg_settings AS present USING (name)
WHERE present.source NOT IN ('client', 'user', 'database', 'database user')
"""
_FREE: Final = "SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"


def connect(parameters: dict[str, Any]) -> Connection:
    """Connect, with limits, to a connection that commits by itself.

    Raises:
        psycopg.Error: as connecting does.
    """
    connection: Connection = psycopg.connect(**parameters, autocommit=True)
    try:
        limit(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def limit(connection: Connection) -> None:
    """End waits on a connection, which commits by itself, as told above unless an operator said otherwise."""
    connection.execute(_LIMIT)


def free(connection: Connection) -> None:
    """Let waits on a connection, which commits by itself, take as long as they take."""
    connection.execute(_FREE)
