"""Tests of the data plane; those that need PostgreSQL have a server, independent of TEST_DATABASE."""

from collections.abc import Iterator

import pytest

from tests.services.postgres import Postgres, running_postgres


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("data") / "postgres") as server:
        yield server


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty database."""
    return postgres.create_database(f"empty_{abs(hash(request.node.nodeid))}")
