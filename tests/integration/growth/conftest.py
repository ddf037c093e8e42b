"""A database that has grown, made once for all tests of this folder's modules that ask for it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.core.management import call_command
from pytest_django import DjangoDbBlocker

from bench.growth.fill import fill
from bench.growth.tables import Size
from tests.factories import TestKey, make_key

# Enough for the planner to see which tables are big; `make growth` has a million.
SIZE = Size(manifests=20_000, giant_tags=5_000)


@dataclass(frozen=True, slots=True)
class Grown:
    """The key of the robot that has pushed it all, and how much that was."""

    key: TestKey
    size: Size


@pytest.fixture(scope="module")
def grown(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Grown]:
    """A filled database. Its tests share it and are not rolled back; it is emptied after the module."""
    with django_db_blocker.unblock():
        key = make_key()
        fill(key.access_key, SIZE)
        yield Grown(key, SIZE)
        call_command("flush", interactive=False, verbosity=0)
