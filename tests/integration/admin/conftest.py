"""The administrator, and a browser session of the administration."""

import pytest
from django.test import Client

from registry_control.identity.models import User
from registry_control.namespaces.models import Namespace
from tests.factories import Pushed, TestKey, make_user
from tests.integration.admin.world import make_world


@pytest.fixture
def administrator() -> User:
    return make_user(password="correct horse battery", is_administrator=True)


@pytest.fixture
def pages(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def world(owner: TestKey, namespace: Namespace) -> Pushed:
    """At least one row of every model."""
    return make_world(owner, namespace)
