"""Connections to PostgreSQL that are kept: one that its server ended is noticed, a sound one is not asked."""

from collections.abc import Iterator

import dj_database_url
import psycopg
import pytest
from django.db.utils import ConnectionHandler
from pytest_django import DjangoDbBlocker

from registry_control.common.postgresql.base import DatabaseWrapper


@pytest.fixture
def connection(url: str, django_db_blocker: DjangoDbBlocker) -> Iterator[DatabaseWrapper]:
    settings = {
        **dj_database_url.parse(url),
        "ENGINE": "registry_control.common.postgresql",
        "CONN_HEALTH_CHECKS": True,
    }
    connection = ConnectionHandler({"default": settings})["default"]
    assert isinstance(connection, DatabaseWrapper)
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
