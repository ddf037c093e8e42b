"""Our connections to PostgreSQL: whether one still stands, and statements that are sent together."""

from collections.abc import Iterator

import dj_database_url
import psycopg
import pytest
from django.db import transaction
from django.db.utils import ConnectionHandler, IntegrityError, OperationalError
from pytest_django import DjangoDbBlocker

from registry_control.common.postgresql.base import DatabaseWrapper


@pytest.fixture
def connection(
    url: str, monkeypatch: pytest.MonkeyPatch, django_db_blocker: DjangoDbBlocker
) -> Iterator[DatabaseWrapper]:
    settings = {
        **dj_database_url.parse(url),
        "ENGINE": "registry_control.common.postgresql",
        "CONN_HEALTH_CHECKS": True,
    }
    connection = ConnectionHandler({"default": settings})["default"]
    assert isinstance(connection, DatabaseWrapper)
    # Django finds the connection of a transaction by its name.
    monkeypatch.setattr(transaction, "get_connection", lambda using=None: connection)
    with django_db_blocker.unblock():  # it knows one database, which is not this one
        connection.connect()
        yield connection
        connection.close()


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
