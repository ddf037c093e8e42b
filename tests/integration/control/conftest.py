"""An owner with a namespace and a pushed image."""

import pytest

from registry_control.identity.models import Organization
from registry_control.namespaces.models import Namespace
from tests.factories import FULL_ACCESS, OPERATOR, Pushed, TestKey, make_key, make_namespace, push_image
from tests.integration.control.api import Api


@pytest.fixture
def key() -> TestKey:
    return make_key()


@pytest.fixture
def api(key: TestKey) -> Api:
    return Api(key)


@pytest.fixture
def namespace(key: TestKey) -> Namespace:
    return make_namespace(key)


@pytest.fixture
def pushed(key: TestKey, namespace: Namespace) -> Pushed:
    """An image with two tags on one digest."""
    return push_image(key, namespace, "sebp/lighttpd", tags=["b", "a"], layers=[b"one", b"two"])


@pytest.fixture
def operator() -> TestKey:
    key = make_key(FULL_ACCESS, OPERATOR)
    Organization.objects.filter(pk=key.organization.pk).update(operates_installation=True)
    return key
