"""Our connections to PostgreSQL: whether one still stands, and statements that are sent together."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from django.db import connections, transaction
from django.db.utils import ConnectionHandler, IntegrityError, OperationalError
from pytest_django import DjangoDbBlocker

from registry_control.db import sql as hand_written
from registry_control.db.postgresql import timeouts
from registry_control.db.postgresql.base import DatabaseWrapper
from registry_control.settings import _database as settings_of
from registry_data.oci.errors import ProtocolError
from registry_data.registry.use_case import use_case


@pytest.fixture
def connection(url: str, django_db_blocker: DjangoDbBlocker) -> Iterator[DatabaseWrapper]:
    connection, before = _connection_to(url), connections["default"]
    connections["default"] = connection  # where transactions and hand-written statements find it
    with django_db_blocker.unblock():  # it knows one database, which is not this one
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
    """When the server was last asked something on this connection."""
    with psycopg.connect(url) as other:
        found = other.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone()
    assert found is not None
    return found[0]


def test_a_sound_connection_is_kept_without_asking(connection: DatabaseWrapper, url: str) -> None:
    backend = _backend(connection)
    before = _statistics(url, backend)
    assert connection.is_usable()
    assert _statistics(url, backend) == before
    assert _backend(connection) == backend


def test_one_that_its_server_ended_is_made_anew(connection: DatabaseWrapper, url: str) -> None:
    backend = _backend(connection)
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    assert not connection.is_usable()
    # when the next use case begins
    connection.close_if_unusable_or_obsolete()
    # then
    assert _backend(connection) != backend


def test_a_message_that_came_by_itself_ends_nothing(connection: DatabaseWrapper, url: str) -> None:
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


def test_without_a_transaction_a_statement_is_done_when_it_returns(table: DatabaseWrapper, url: str) -> None:
    table.execute(WRITE, [1])
    assert _seen_by_others(url) == [1]


def test_what_waits_comes_before_the_next_one_and_is_committed_with_it(
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


def test_what_is_larger_than_any_buffer_is_sent_whole(table: DatabaseWrapper) -> None:
    large = bytes(20 * 1024 * 1024)
    with transaction.atomic():
        table.execute("CREATE TABLE b (x bytea)", [])
        for _ in range(2):
            table.execute("INSERT INTO b VALUES (%s)", [large])
        assert table.query("INSERT INTO b VALUES (%s) RETURNING x", [large]) == [(large,)]
        assert table.query("SELECT x FROM b", []) == [(large,)] * 3


def test_a_cursor_comes_after_what_waits(table: DatabaseWrapper) -> None:
    with transaction.atomic():
        table.execute(WRITE, [1])
        with table.cursor() as cursor:
            cursor.execute(READ)
            assert cursor.fetchall() == [(1,)]


def test_a_rollback_forgets_what_waits(table: DatabaseWrapper, url: str) -> None:
    def fail() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    table.execute(WRITE, [2])
    assert _seen_by_others(url) == [2]


def test_the_rollback_of_a_savepoint_takes_what_waited_in_it(table: DatabaseWrapper, url: str) -> None:
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
def test_an_error_of_what_waited_undoes_all_of_it(table: DatabaseWrapper, url: str, others: int) -> None:
    def write() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            table.execute(WRITE, [1])
            for number in range(others):
                table.execute(WRITE, [2 + number])

    with pytest.raises(IntegrityError, match="duplicate key"):
        write()
    assert _seen_by_others(url) == []
    # and the connection goes on
    table.execute(WRITE, [1])
    assert _seen_by_others(url) == [1]


def test_a_question_after_an_error_that_waited_is_told_of_it(table: DatabaseWrapper) -> None:
    table.execute(WRITE, [1])

    def ask() -> None:
        with transaction.atomic():
            table.execute(WRITE, [1])
            with table.wrap_database_errors:
                table.query(READ, [])

    with pytest.raises(IntegrityError, match="duplicate key"):
        ask()
    assert table.query(READ, []) == [(1,)]


def test_a_parameter_that_no_statement_can_have_is_refused_at_once(table: DatabaseWrapper) -> None:
    with transaction.atomic(), pytest.raises(psycopg.DataError):
        table.execute("INSERT INTO a SELECT length(%s)", ["a\0b"])
    assert table.query(READ, []) == []


def test_a_table_that_changed_is_asked_anew(table: DatabaseWrapper, url: str) -> None:
    table.execute(WRITE, [1])
    assert table.query("SELECT * FROM a", []) == [(1,)]
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("ALTER TABLE a ADD b text")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        table.query("SELECT * FROM a", [])
    assert table.query("SELECT * FROM a", []) == [(1, None)]


@pytest.mark.parametrize("waiting", [False, True])
def test_a_connection_that_is_lost_is_said_to_be(table: DatabaseWrapper, url: str, waiting: bool) -> None:
    backend = _backend(table)

    def ask() -> None:
        with transaction.atomic():
            assert table.query(READ, []) == []
            with psycopg.connect(url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
            if waiting:
                table.execute(WRITE, [1])
            with table.wrap_database_errors:
                table.query(READ, [])

    with pytest.raises(OperationalError):
        ask()
    table.close_if_unusable_or_obsolete()
    assert _backend(table) != backend
    assert _seen_by_others(url) == []


def _end(url: str, backend: int) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])


def test_hand_written_statements_notice_that_the_server_has_ended_a_connection(
    table: DatabaseWrapper, url: str
) -> None:
    # given a connection that was kept from one use case to the next while its server was started anew
    _end(url, _backend(table))
    for run in (lambda: hand_written.rows(READ, []), lambda: hand_written.execute(WRITE, [1])):
        # when the first thing that a use case does is a hand-written statement, then it gets a new one
        with use_case():
            run()
        _end(url, _backend(table))
    assert _seen_by_others(url) == [1]


def test_a_connection_that_ends_in_a_transaction_is_not_made_anew_within_it(
    table: DatabaseWrapper, url: str
) -> None:
    def write() -> None:
        with use_case(), transaction.atomic():
            hand_written.rows("INSERT INTO a VALUES (1) RETURNING n", [])
            _end(url, _backend(table))
            hand_written.rows("INSERT INTO a VALUES (2) RETURNING n", [])

    with pytest.raises(ProtocolError, match="UNAVAILABLE"):
        write()
    assert _seen_by_others(url) == []


def _write() -> None:
    with use_case(), transaction.atomic():
        hand_written.rows("INSERT INTO a VALUES (1) RETURNING n", [])


@pytest.mark.parametrize("while_it_connects", [True, False])
def test_a_database_that_takes_no_changes_is_said_to_be_away_until_it_does(
    table: DatabaseWrapper, url: str, while_it_connects: bool
) -> None:
    # given a database that may only be read, or a session that was told so
    name = url.rsplit("/", 1)[1]
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        if while_it_connects:
            table.close()
        else:
            table.execute("SET default_transaction_read_only = on", [])

        # when somebody writes, then the answer is that they may try again
        with pytest.raises(ProtocolError, match=r"UNAVAILABLE: .* is read-only at present"):
            _write()
        administrator.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')

    # when it takes changes again, then so does the very next use case
    _write()
    assert _seen_by_others(url) == [1]


def test_who_waits_for_a_row_that_nobody_gives_back_is_told_to_try_again(
    table: DatabaseWrapper, url: str
) -> None:
    # given somebody who holds a row and does not go on
    table.execute(WRITE, [1])
    table.execute("SET lock_timeout = '100ms'", [])  # it is ten seconds otherwise, as the next test says
    with psycopg.connect(url) as holder:
        holder.execute("SELECT n FROM a FOR UPDATE")

        # when another one wants it, then it is told so, and the connection goes on
        def hold() -> None:
            with use_case(), transaction.atomic():
                hand_written.rows("SELECT n FROM a FOR UPDATE", [])

        with pytest.raises(ProtocolError, match=r"UNAVAILABLE: another request has locked"):
            hold()
    hold()


def _limits(connection: psycopg.Connection[tuple[str, ...]]) -> tuple[str, ...] | None:
    names = ("lock_timeout", "idle_in_transaction_session_timeout")
    return connection.execute("SELECT current_setting(%s), current_setting(%s)", names).fetchone()


def test_every_connection_ends_waits_for_locks_and_transactions_that_rest(
    connection: DatabaseWrapper,
) -> None:
    assert _limits(connection.connection) == ("10s", "30s")
    with closing(timeouts.connect(connection.get_connection_params())) as of_the_reads:
        assert _limits(of_the_reads) == ("10s", "30s")


def test_other_limits_of_the_operators_own_are_kept(url: str, django_db_blocker: DjangoDbBlocker) -> None:
    # given a limit in the URL, and one of the database
    name = url.rsplit("/", 1)[1]
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(f"ALTER DATABASE \"{name}\" SET idle_in_transaction_session_timeout = '7s'")
    connection = _connection_to(f"{url}?options=-c%20lock_timeout%3D3s&keepalives_idle=77")
    with django_db_blocker.unblock(), closing(connection):
        connection.connect()
        assert _limits(connection.connection) == ("3s", "7s")
        assert _of_socket(connection, socket.TCP_KEEPIDLE) == 77


def test_migrations_wait_for_as_long_as_it_takes(connection: DatabaseWrapper) -> None:
    connection.prepare_database()
    assert _limits(connection.connection) == ("0", "0")


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_transaction_that_rests_ends_and_gives_back_what_it_held(
    table: DatabaseWrapper, url: str, by_hand: bool
) -> None:
    # given a use case that stands still in a transaction, as its machine does
    table.execute(WRITE, [1])
    table.execute("SET idle_in_transaction_session_timeout = '100ms'", [])

    def stand_still() -> None:
        with use_case(), transaction.atomic():
            hand_written.rows("SELECT n FROM a FOR UPDATE", [])
            with psycopg.connect(url) as other:
                other.execute("SELECT n FROM a FOR UPDATE")  # others come by
            if by_hand:
                hand_written.rows(READ, [])
            else:
                table.cursor().execute(READ)

    # then it is told so when it goes on, and the next one gets another connection
    with pytest.raises(ProtocolError, match="UNAVAILABLE"):
        stand_still()
    with use_case():
        assert hand_written.rows(READ, []) == [(1,)]


def _of_socket(connection: DatabaseWrapper, option: int) -> int:
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as of_server:
        return of_server.getsockopt(socket.IPPROTO_TCP, option)


def test_a_server_that_vanished_is_noticed_in_half_a_minute(connection: DatabaseWrapper) -> None:
    asked = _of_socket(connection, socket.TCP_KEEPIDLE)
    asked += _of_socket(connection, socket.TCP_KEEPINTVL) * _of_socket(connection, socket.TCP_KEEPCNT)
    assert asked <= 30
    assert 0 < _of_socket(connection, socket.TCP_USER_TIMEOUT) <= 30_000  # milliseconds
