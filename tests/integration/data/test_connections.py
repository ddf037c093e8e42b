"""Connections to PostgreSQL: reconnects, timeouts, and statements that are queued and sent together."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from threading import Timer

import psycopg
import pytest
from django.db import connections, transaction
from django.db.utils import ConnectionHandler, IntegrityError, OperationalError
from pytest_django import DjangoDbBlocker

from registry_control.db import sql as hand_written
from registry_control.db.postgresql import timeouts
from registry_control.db.postgresql.base import DatabaseWrapper
from registry_control.settings import _database as settings_of
from registry_control.standalone.startup_lock import _KEY, startup_lock
from registry_data.oci.errors import ProtocolError
from registry_data.registry.use_case import use_case


@pytest.fixture
def connection(url: str, django_db_blocker: DjangoDbBlocker) -> Iterator[DatabaseWrapper]:
    connection, before = _connection_to(url), connections["default"]
    connections["default"] = connection  # transactions and hand-written statements use this alias
    with (
        django_db_blocker.unblock()
    ):  # pytest-django blocks every connection that is not to its test database
        connection.connect()
        yield connection
        connection.close()
    connections["default"] = before


def _connection_to(url: str) -> DatabaseWrapper:
    connection = ConnectionHandler({"default": settings_of(url)})["default"]
    assert isinstance(connection, DatabaseWrapper)
    return connection


def _backend(connection: DatabaseWrapper) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return int(pid)


def _statistics(url: str, backend: int) -> object:
    """The time at which the server received the last query of this connection."""
    with psycopg.connect(url) as other:
        found = other.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone()
    assert found is not None
    return found[0]


def test_a_usable_connection_is_reused_without_a_query(connection: DatabaseWrapper, url: str) -> None:
    backend = _backend(connection)
    before = _statistics(url, backend)
    assert connection.is_usable()
    assert _statistics(url, backend) == before
    assert _backend(connection) == backend


def test_a_connection_terminated_by_the_server_is_replaced(connection: DatabaseWrapper, url: str) -> None:
    backend = _backend(connection)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    assert not connection.is_usable()
    # when the next use case begins
    connection.close_if_unusable_or_obsolete()
    # then
    assert _backend(connection) != backend


def test_a_connection_with_a_pending_notification_is_usable(connection: DatabaseWrapper, url: str) -> None:
    backend = _backend(connection)
    with connection.cursor() as cursor:
        cursor.execute("LISTEN a")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("NOTIFY a")
    assert connection.is_usable()
    assert _backend(connection) == backend


WRITE = "INSERT INTO a VALUES (%s)"
READ = "SELECT n FROM a ORDER BY n"


@pytest.fixture
def table(connection: DatabaseWrapper) -> DatabaseWrapper:
    connection.execute("CREATE TABLE a (n integer UNIQUE)", [])
    return connection


def _seen_by_others(url: str) -> list[int]:
    with psycopg.connect(url) as other:
        return [number for (number,) in other.execute(READ)]


def test_without_a_transaction_a_statement_is_committed_when_it_returns(
    table: DatabaseWrapper, url: str
) -> None:
    table.execute(WRITE, [1])
    assert _seen_by_others(url) == [1]


def test_queued_statements_run_before_the_next_query_and_are_committed(
    table: DatabaseWrapper, url: str
) -> None:
    with transaction.atomic():
        table.execute(WRITE, [1])
        assert table.query(READ, []) == [(1,)]
        table.execute(WRITE, [2])
        table.execute(WRITE, [3])
        assert _seen_by_others(url) == []
    assert _seen_by_others(url) == [1, 2, 3]
    assert table.query(READ, []) == [(1,), (2,), (3,)]


def test_values_larger_than_the_socket_buffers_are_sent_completely(table: DatabaseWrapper) -> None:
    large = bytes(20 * 1024 * 1024)
    with transaction.atomic():
        table.execute("CREATE TABLE b (x bytea)", [])
        for _ in range(2):
            table.execute("INSERT INTO b VALUES (%s)", [large])
        assert table.query("INSERT INTO b VALUES (%s) RETURNING x", [large]) == [(large,)]
        assert table.query("SELECT x FROM b", []) == [(large,)] * 3


def test_a_cursor_sees_the_queued_statements(table: DatabaseWrapper) -> None:
    with transaction.atomic():
        table.execute(WRITE, [1])
        with table.cursor() as cursor:
            cursor.execute(READ)
            assert cursor.fetchall() == [(1,)]


def test_a_rollback_discards_queued_statements(table: DatabaseWrapper, url: str) -> None:
    def fail() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    table.execute(WRITE, [2])
    assert _seen_by_others(url) == [2]


def test_the_rollback_of_a_savepoint_discards_its_queued_statements(table: DatabaseWrapper, url: str) -> None:
    def fail() -> None:
        with transaction.atomic():
            table.execute(WRITE, [2])
            raise ZeroDivisionError

    with transaction.atomic():
        table.execute(WRITE, [1])
        with pytest.raises(ZeroDivisionError):
            fail()
        table.execute(WRITE, [3])
    assert _seen_by_others(url) == [1, 3]


@pytest.mark.parametrize("others", [0, 3])
def test_an_error_of_a_queued_statement_rolls_back_the_transaction(
    table: DatabaseWrapper, url: str, others: int
) -> None:
    def write() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            table.execute(WRITE, [1])
            for number in range(others):
                table.execute(WRITE, [2 + number])

    with pytest.raises(IntegrityError, match="duplicate key"):
        write()
    assert _seen_by_others(url) == []
    # and the connection can still be used
    table.execute(WRITE, [1])
    assert _seen_by_others(url) == [1]


def test_a_query_raises_the_error_of_a_queued_statement(table: DatabaseWrapper) -> None:
    table.execute(WRITE, [1])

    def run_query() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            with table.wrap_database_errors:
                table.query(READ, [])

    with pytest.raises(IntegrityError, match="duplicate key"):
        run_query()
    assert table.query(READ, []) == [(1,)]


def test_a_parameter_without_representation_is_rejected_at_once(table: DatabaseWrapper) -> None:
    with transaction.atomic(), pytest.raises(psycopg.DataError):
        table.execute("INSERT INTO a SELECT length(%s)", ["a\0b"])
    assert table.query(READ, []) == []


def test_a_query_is_prepared_again_after_its_table_changed(table: DatabaseWrapper, url: str) -> None:
    table.execute(WRITE, [1])
    assert table.query("SELECT * FROM a", []) == [(1,)]
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("ALTER TABLE a ADD b text")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        table.query("SELECT * FROM a", [])
    assert table.query("SELECT * FROM a", []) == [(1, None)]


@pytest.mark.parametrize("waiting", [False, True])
def test_a_lost_connection_is_an_operational_error(table: DatabaseWrapper, url: str, waiting: bool) -> None:
    backend = _backend(table)

    def run_query() -> None:
        with transaction.atomic():
            assert table.query(READ, []) == []
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
            if waiting:
                table.execute(WRITE, [1])
            with table.wrap_database_errors:
                table.query(READ, [])

    with pytest.raises(OperationalError):
        run_query()
    table.close_if_unusable_or_obsolete()
    assert _backend(table) != backend
    assert _seen_by_others(url) == []


def _terminate(url: str, backend: int) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])


def test_a_use_case_that_begins_with_a_hand_written_statement_reconnects(
    table: DatabaseWrapper, url: str
) -> None:
    # given a persistent connection that the server terminated between two use cases
    _terminate(url, _backend(table))
    for run in (lambda: hand_written.rows(READ, []), lambda: hand_written.execute(WRITE, [1])):
        # when a use case begins with a hand-written statement, then it gets a new connection
        with use_case():
            run()
        _terminate(url, _backend(table))
    assert _seen_by_others(url) == [1]


def test_a_connection_lost_in_a_transaction_is_not_replaced_within_it(
    table: DatabaseWrapper, url: str
) -> None:
    def write() -> None:
        with use_case(), transaction.atomic():
            hand_written.rows("INSERT INTO a VALUES (1) RETURNING n", [])
            _terminate(url, _backend(table))
            hand_written.rows("INSERT INTO a VALUES (2) RETURNING n", [])

    with pytest.raises(ProtocolError, match="UNAVAILABLE"):
        write()
    assert _seen_by_others(url) == []


def _write() -> None:
    with use_case(), transaction.atomic():
        hand_written.rows("INSERT INTO a VALUES (1) RETURNING n", [])


@pytest.mark.parametrize("while_it_connects", [True, False])
def test_writes_to_a_read_only_database_are_unavailable_until_it_is_writable(
    table: DatabaseWrapper, url: str, while_it_connects: bool
) -> None:
    # given a database that is read-only for new sessions, or a session that is
    name = url.rsplit("/", 1)[1]
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        if while_it_connects:
            table.close()
        else:
            table.execute("SET default_transaction_read_only = on", [])

        # when a use case writes, then the error is UNAVAILABLE, which clients retry
        with pytest.raises(ProtocolError, match=r"UNAVAILABLE: .* is read-only at present"):
            _write()
        administrator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    # when the database is writable again, then the next use case succeeds
    _write()
    assert _seen_by_others(url) == [1]


def test_waiting_for_a_locked_row_times_out_with_unavailable(table: DatabaseWrapper, url: str) -> None:
    # given another transaction that has locked a row
    table.execute(WRITE, [1])
    table.execute("SET lock_timeout = '100ms'", [])  # the default is 10 seconds, see the next test
    with psycopg.connect(url) as holder:
        holder.execute("SELECT n FROM a FOR UPDATE")

        # when a use case locks the same row, then it times out, and its connection can still be used
        def lock() -> None:
            with use_case(), transaction.atomic():
                hand_written.rows("SELECT n FROM a FOR UPDATE", [])

        with pytest.raises(ProtocolError, match=r"UNAVAILABLE: another request has locked"):
            lock()
    lock()


def _timeouts(connection: psycopg.Connection[tuple[str, ...]]) -> tuple[str, ...] | None:
    names = ("lock_timeout", "idle_in_transaction_session_timeout")
    return connection.execute("SELECT current_setting(%s), current_setting(%s)", names).fetchone()


def test_every_connection_has_timeouts_for_locks_and_idle_transactions(
    connection: DatabaseWrapper,
) -> None:
    assert _timeouts(connection.connection) == ("10s", "30s")
    with closing(timeouts.connect(connection.get_connection_params())) as for_reads:
        assert _timeouts(for_reads) == ("10s", "30s")


def test_timeouts_set_by_the_operator_take_precedence(url: str, django_db_blocker: DjangoDbBlocker) -> None:
    # given a timeout in the URL, and one of the database
    name = url.rsplit("/", 1)[1]
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(f"ALTER DATABASE \"{name}\" SET idle_in_transaction_session_timeout = '7s'")
    connection = _connection_to(f"{url}?options=-c%20lock_timeout%3D3s&keepalives_idle=77")
    with django_db_blocker.unblock(), closing(connection):
        connection.connect()
        assert _timeouts(connection.connection) == ("3s", "7s")
        assert _socket_option(connection, socket.TCP_KEEPIDLE) == 77


def test_migrations_have_no_timeouts(connection: DatabaseWrapper) -> None:
    connection.execute("SET statement_timeout = '60s'", [])
    connection.prepare_database()
    assert _timeouts(connection.connection) == ("0", "0")
    assert connection.query("SELECT current_setting('statement_timeout')", []) == [("0",)]


def test_the_startup_lock_has_no_timeouts(url: str, django_db_blocker: DjangoDbBlocker) -> None:
    # given a role with a timeout for statements, and a node that holds the lock for longer
    limited = _connection_to(f"{url}?options=-c%20statement_timeout%3D300ms")
    with psycopg.connect(url) as holder, django_db_blocker.unblock(), closing(limited):
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [_KEY])
        before, connections["default"] = connections["default"], limited
        try:
            # when another node waits for the lock, then it acquires it
            with startup_lock(lambda _: Timer(1, holder.rollback).start()):
                assert holder.execute("SELECT pg_try_advisory_xact_lock(%s)", [_KEY]).fetchone() == (False,)
        finally:
            connections["default"] = before


@pytest.mark.parametrize("by_hand", [True, False])
def test_an_idle_transaction_is_terminated_and_its_locks_released(
    table: DatabaseWrapper, url: str, by_hand: bool
) -> None:
    # given a use case that is suspended in a transaction, as on a machine that hangs
    table.execute(WRITE, [1])
    table.execute("SET idle_in_transaction_session_timeout = '100ms'", [])

    def idle_in_transaction() -> None:
        with use_case(), transaction.atomic():
            hand_written.rows("SELECT n FROM a FOR UPDATE", [])
            with psycopg.connect(url) as other:
                other.execute("SELECT n FROM a FOR UPDATE")  # succeeds when the lock is released
            if by_hand:
                hand_written.rows(READ, [])
            else:
                table.cursor().execute(READ)

    # then its next statement fails, and the next use case gets another connection
    with pytest.raises(ProtocolError, match="UNAVAILABLE"):
        idle_in_transaction()
    with use_case():
        assert hand_written.rows(READ, []) == [(1,)]


def _socket_option(connection: DatabaseWrapper, option: int) -> int:
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as of_server:
        return of_server.getsockopt(socket.IPPROTO_TCP, option)


def test_an_unreachable_server_is_detected_within_30_seconds(connection: DatabaseWrapper) -> None:
    seconds = _socket_option(connection, socket.TCP_KEEPIDLE)
    seconds += _socket_option(connection, socket.TCP_KEEPINTVL) * _socket_option(
        connection, socket.TCP_KEEPCNT
    )
    assert seconds <= 30
    assert 0 < _socket_option(connection, socket.TCP_USER_TIMEOUT) <= 30_000  # milliseconds
