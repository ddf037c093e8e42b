"""What concerns no repository: logging in, tokens, keys, health."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.db import connection

from registry_control.access.errors import BadCredentials
from registry_control.access.services import docker_token, published_keys
from registry_control.catalog.selectors.resolve import repository_facts
from registry_data.registry.gate import Credentials, identify
from registry_data.registry.unit import unit
from registry_data.storage.base import BlobStore


def check_login(credentials: Credentials) -> None:
    """Let whoever proves to be somebody pass, rights or none; that is what a login is (checklist 29).

    Raises:
        Refused: they prove nobody.
    """
    with unit():
        identify(credentials)


def keys() -> list[dict[str, str]]:
    """The public keys that tokens may be signed with now."""
    with unit():
        return published_keys()


def check_health(store: BlobStore) -> None:
    """Ask the database and the storage for a sign of life.

    Raises:
        ProtocolError: one does not answer.
    """
    with unit():
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        store.check()
