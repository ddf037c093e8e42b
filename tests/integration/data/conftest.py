"""A PostgreSQL server of these tests, whatever TEST_DATABASE is: so they run once, not once per database."""

from collections.abc import Iterator

import pytest

from tests.services.postgres import Postgres, running_postgres


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with running_postgres(tmp_path_factory.mktemp("data") / "postgres") as server:
        yield server


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """A database that is empty."""
    return postgres.create_database(f"empty_{abs(hash(request.node.nodeid))}")
