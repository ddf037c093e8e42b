"""A PostgreSQL server whatever the product itself runs on."""

from collections.abc import Iterator

import pytest

from tests.services.plugin import Backing
from tests.services.postgres import Postgres, running_postgres


@pytest.fixture(scope="package")
def postgres(backing: Backing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The run's own server, or one just for these tests."""
    if backing.postgres is not None:
        yield backing.postgres
    else:
        with running_postgres(tmp_path_factory.mktemp("data") / "postgres") as server:
            yield server


@pytest.fixture
def url(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """A database that is empty."""
    return postgres.create_database(f"empty_{abs(hash(request.node.nodeid))}")
