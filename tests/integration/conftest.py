"""An owner's key and a namespace."""

import pytest

from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_key, make_namespace


@pytest.fixture
def owner() -> TestKey:
    return make_key()


@pytest.fixture
def namespace(owner: TestKey) -> Namespace:
    return make_namespace(owner)
