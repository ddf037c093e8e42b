"""Every route used twice: once when the registry is new, and once when it has grown."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from django.core.management import call_command
from pytest_django import DjangoDbBlocker

from bench.growth.fill import fill
from bench.growth.tables import Size
from tests.factories import TestKey, make_key, make_namespace
from tests.integration.growth.routes import ROUTES, Scene, make_scene
from tests.integration.growth.watched import Watched

# 20 000 are enough for the planner to see which tables are big; `make growth` has a million.
_MANIFESTS: Final = int(os.environ.get("GROWTH_MANIFESTS", "20000"))
SIZE: Final = Size(manifests=_MANIFESTS, giant_tags=max(5_000, _MANIFESTS // 10))
_FEW_LAYERS: Final = 3
_MANY_LAYERS: Final = 30


@dataclass(frozen=True)
class Grown:
    """The key of the robot that has pushed it all, how much that was, and an image of its own beside it."""

    key: TestKey
    size: Size
    folder: Path

    def scene(self, layers: int) -> Scene:
        """A new image in a new namespace."""
        return make_scene(self.folder, self.key, make_namespace(self.key), layers=layers)


@pytest.fixture(scope="package")
def new(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Grown]:
    """A registry with nothing in it. What happens in it is committed: threads see it, no test undoes it."""
    with django_db_blocker.unblock():
        # Rows that other tests have left would make small tables look big.
        call_command("flush", interactive=False, verbosity=0)
        yield Grown(make_key(), Size(0, 0), tmp_path_factory.mktemp("growth"))
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture(scope="package")
def asked_when_new(new: Grown) -> Mapping[str, Watched]:
    """What each route asks for an image of few layers."""
    return {name: use(new.scene(_FEW_LAYERS)) for name, use in ROUTES.items()}


@pytest.fixture(scope="package")
def grown(new: Grown, asked_when_new: Mapping[str, Watched]) -> Grown:
    """The same registry, filled."""
    fill(new.key.access_key, SIZE)
    return Grown(new.key, SIZE, new.folder)


@pytest.fixture(scope="package")
def asked_when_grown(grown: Grown) -> Mapping[str, Watched]:
    """What each route asks for an image of many layers."""
    return {name: use(grown.scene(_MANY_LAYERS)) for name, use in ROUTES.items()}
