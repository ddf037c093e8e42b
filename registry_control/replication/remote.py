"""Connections to targets, through the one client that refuses internal addresses."""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cachetools import LRUCache
from django.conf import settings

from registry_control.replication import credentials
from registry_control.replication.errors import ForbiddenAddress
from registry_control.replication.models import Target
from registry_data.client.errors import EgressRefused, RemoteError
from registry_data.client.registry import RemoteRegistry

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

_CACHED: Final = 16  # clients of one process
_UNREADABLE: Final = (
    "the password of this target was encrypted with another REGISTRY_SECRET_KEY: enter it again"
)


class CredentialsUnreadable(RemoteError):
    """The stored password cannot be decrypted. A retry does not help."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check of a target."""

    ok: bool
    message: str


def check_address(url: str) -> None:
    """Refuse the URL of an address that is known to be internal, without connecting or resolving a name.

    Raises:
        ForbiddenAddress: its message names the setting that allows the address.
    """
    parts = urlsplit(url)
    try:
        settings.EGRESS.check(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except EgressRefused as error:
        raise ForbiddenAddress(str(error)) from error


def connect(target: Target) -> RemoteRegistry:
    """A client of a target; creating it causes no I/O. Close it.

    Raises:
        CredentialsUnreadable: the password was encrypted with another secret key.
    """
    try:
        password = credentials.unseal(bytes(target.sealed_password), target_id=target.pk)
    except credentials.Unreadable as error:
        raise CredentialsUnreadable(_UNREADABLE) from error
    return RemoteRegistry(
        target.url,
        username=target.username,
        password=password,
        insecure=target.insecure,
        egress=settings.EGRESS,
    )


class Registries:
    """The clients of a worker process, so that its threads share connections and tokens.

    A target that was changed gets a new client. The one before is not closed, because threads may use it; its
    connections end with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cached: LRUCache[tuple[UUID, datetime], RemoteRegistry] = LRUCache(_CACHED)

    def of(self, target: Target) -> RemoteRegistry:
        """The client of a target; thread-safe.

        Raises:
            CredentialsUnreadable: the password was encrypted with another secret key.
        """
        key = (target.pk, target.updated_at)
        with self._lock:
            found = self._cached.get(key)
            if found is None:
                found = self._cached[key] = connect(target)
            return found


registries: Final = Registries()


def check(target: Target) -> Checked:
    """Connect to a target and sign in."""
    try:
        with connect(target) as registry:
            registry.check()
    except RemoteError as error:
        return Checked(False, str(error))
    return Checked(True, f"{target.url} answers and accepts the credentials")
