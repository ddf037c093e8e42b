"""Requests every route twice: in an empty registry and in a large one."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from django.core.management import call_command
from django.db import transaction
from pytest_django import DjangoDbBlocker

from bench.growth.fill import fill
from bench.growth.tables import Size
from tests.factories import TestKey, make_key, make_namespace
from tests.integration.growth.routes import ROUTES, Scene, make_scene
from tests.integration.growth.watched import Watched

# 20,000 are enough for the planner to treat tables as large; `make growth` uses a million.
_MANIFESTS: Final = int(os.environ.get("GROWTH_MANIFESTS", "20000"))
SIZE: Final = Size(manifests=_MANIFESTS, giant_tags=max(5_000, _MANIFESTS // 10))
_FEW_LAYERS: Final = 3
_MANY_LAYERS: Final = 30


@dataclass(frozen=True)
class Grown:
    """A registry: the key that pushed its content, and the content's size."""

    key: TestKey
    size: Size
    folder: Path

    def scene(self, layers: int) -> Scene:
        """Push a new image to a new namespace."""
        return make_scene(self.folder, self.key, make_namespace(self.key), layers=layers)


@pytest.fixture(autouse=True)
def _no_check_of_all_foreign_keys(db: None) -> Iterator[None]:
    """Django checks the foreign keys of all rows after a test, unless it knows that they are rolled back."""
    yield
    transaction.set_rollback(True)


@pytest.fixture(scope="package")
def new(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grown]:
    """An empty registry. Changes are committed, because the routes use other threads."""
    with django_db_blocker.unblock():
        # Rows left by other tests would make small tables look large.
        call_command("flush", interactive=False, verbosity=0)
        yield Grown(make_key(), Size(0, 0), tmp_path_factory.mktemp("growth"))
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture(scope="package")
def statements_when_new(new: Grown) -> Mapping[str, Watched]:
    """The statements of each route for an image with few layers."""
    return {name: use(new.scene(_FEW_LAYERS)) for name, use in ROUTES.items()}


@pytest.fixture(scope="package")
def grown(new: Grown, statements_when_new: Mapping[str, Watched]) -> Grown:
    """The same registry, filled with generated content."""
    fill(new.key.access_key, SIZE)
    return Grown(new.key, SIZE, new.folder)


@pytest.fixture(scope="package")
def statements_when_grown(grown: Grown) -> Mapping[str, Watched]:
    """The statements of each route for an image with many layers."""
    return {name: use(grown.scene(_MANY_LAYERS)) for name, use in ROUTES.items()}
