"""The administrator, and a browser session of the administration."""

import pytest
from django.test import Client

from registry_control.identity.models import User
from tests.factories import make_user


@pytest.fixture
def administrator() -> User:
    return make_user(password="correct horse battery", is_administrator=True)


@pytest.fixture
def pages(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client
