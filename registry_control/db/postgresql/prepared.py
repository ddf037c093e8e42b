"""Statements prepared on one connection, and the conversion of parameters and results (libpq)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Rows: TypeAlias = list[tuple[Any, ...]]
Statement: TypeAlias = tuple[str, tuple[int, ...]]
"""SQL text with `%s` for parameters and no other per cent sign, and the OIDs of the parameters' types."""

SUCCESS: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

# Lists of each length are a different statement, and the server keeps all it has prepared: so statements with
# more parameters are not prepared.
_MAX_PARAMETERS: Final = 64


@dataclass(frozen=True, slots=True)
class BoundStatement:
    """A statement and its parameters in libpq's form."""

    statement: Statement
    values: Sequence[Any]
    formats: Sequence[pq.Format] | None


def bind(connection: Connection, sql: str, parameters: Sequence[Any]) -> BoundStatement:
    """Convert parameters as psycopg's cursors would.

    Raises:
        psycopg.Error: a parameter has a type or value that PostgreSQL cannot represent.
    """
    adapting = Transformer(connection)
    values = adapting.dump_sequence(parameters, [PyFormat.AUTO] * len(parameters))
    return BoundStatement((sql, tuple(adapting.types or ())), values, adapting.formats)


def rows_of(result: pq.abc.PGresult, connection: Connection) -> Rows:
    """The rows of a result in binary form."""
    adapting = Transformer(connection)
    adapting.set_pgresult(result)
    return adapting.load_rows(0, result.ntuples, tuple)


class PreparedStatements:
    """The statements that are prepared on one connection, by the names they have there."""

    def __init__(self) -> None:
        self._names: dict[Statement, bytes] = {}
        self._prepared = 0  # statements so far; a name is never used twice

    def name(self, statement: Statement) -> bytes | None:
        """The name under which a statement is prepared, if it is."""
        return self._names.get(statement)

    def send(self, pgconn: pq.abc.PGconn, bound: BoundStatement) -> int:
        """Queue a statement on a connection in pipeline mode, its preparation first if that is necessary.

        Returns the number of results that the server will send for it: 2 with a preparation, else 1.

        Raises:
            psycopg.Error: the connection is lost.
        """
        sql, types = bound.statement
        if len(bound.values) > _MAX_PARAMETERS:
            pgconn.send_query_params(_numbered(sql), bound.values, types, bound.formats, pq.Format.BINARY)
            return 1
        if is_new := bound.statement not in self._names:
            self._prepared += 1
            name = self._names[bound.statement] = b"stowage_%d" % self._prepared
            pgconn.send_prepare(name, _numbered(sql), types)
        name = self._names[bound.statement]
        pgconn.send_query_prepared(name, bound.values, bound.formats, pq.Format.BINARY)
        return 1 + is_new

    def forget(self, statement: Statement) -> None:
        """Prepare a statement again at its next use: after an error that its preparation may have caused."""
        self._names.pop(statement, None)

    def forget_all(self) -> None:
        """Prepare every statement again at its next use."""
        self._names.clear()


def _numbered(sql: str) -> bytes:
    """The statement with PostgreSQL's `$1`, `$2` as placeholders."""
    first, *others = sql.split("%s")
    return (first + "".join(f"${number}{part}" for number, part in enumerate(others, 1))).encode()
