"""Who administers, and what there is to administer."""

import pytest
from django.test import Client

from registry_control.identity.models import User
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_key, make_namespace, make_user


@pytest.fixture
def administrator() -> User:
    return make_user(password="correct horse battery", is_administrator=True)


@pytest.fixture
def pages(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def owner() -> TestKey:
    return make_key()


@pytest.fixture
def namespace(owner: TestKey) -> Namespace:
    return make_namespace(owner)
