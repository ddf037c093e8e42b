"""Connections to targets, through the one client that refuses internal addresses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings

from registry_control.common.version import version
from registry_control.replication import credentials
from registry_control.replication.errors import ForbiddenAddress
from registry_control.replication.models import Target
from registry_data.client.errors import EgressRefused, RemoteError
from registry_data.client.registry import RemoteRegistry

_Key: TypeAlias = tuple[UUID, datetime]  # of a target, and when it was changed

_CHECK_TIMEOUT: Final = 10.0  # seconds
_checks: Final = threading.BoundedSemaphore(2)
_IDLE: Final = 8  # clients that a process keeps without using them
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
        user_agent=f"stowage/{version()}",
    )


@dataclass(slots=True)
class _Shared:
    """A client, and how many threads use it."""

    registry: RemoteRegistry
    users: int = 0


class Registries:
    """The clients of a worker process, so that its threads share connections and tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[_Key, _Shared] = {}  # the one that was used longest ago first

    @contextmanager
    def of(self, target: Target) -> Iterator[RemoteRegistry]:
        """The client of a target, for the duration of the block; a target that was changed gets a new one.

        Raises:
            CredentialsUnreadable: the password was encrypted with another secret key.
        """
        key = (target.pk, target.updated_at)
        with self._lock:
            shared = self._shared.pop(key, None) or _Shared(connect(target))
            self._shared[key] = shared
            shared.users += 1
        try:
            yield shared.registry
        finally:
            with self._lock:
                shared.users -= 1
                self._close_idle(keep=_IDLE)

    def abort(self) -> None:
        """Make all requests of this process fail that wait for a target."""
        with self._lock:
            shared = list(self._shared.values())
        for each in shared:
            each.registry.abort()

    def close_idle(self) -> None:
        """Close the clients that no thread uses."""
        with self._lock:
            self._close_idle(keep=0)

    def _close_idle(self, *, keep: int) -> None:
        idle = [key for key, shared in self._shared.items() if not shared.users]
        for key in idle[: max(len(idle) - keep, 0)]:
            self._shared.pop(key).registry.close()


registries: Final = Registries()


def check(target: Target) -> Checked:
    """Connect to a target and sign in; ends after ten seconds. A request waits for the result.

    At most a few run at once in a process, so that slow targets cannot use up the threads of the API.
    """
    if not _checks.acquire(blocking=False):
        return Checked(False, "other targets are being checked: try again in a moment")
    try:
        return _check(target)
    finally:
        _checks.release()


def _check(target: Target) -> Checked:
    try:
        with connect(target) as registry:
            timer = threading.Timer(_CHECK_TIMEOUT, registry.abort)
            timer.start()
            try:
                registry.check()
            finally:
                timer.cancel()
    except RemoteError as error:
        return Checked(False, str(error))
    return Checked(True, f"{target.url} answers and accepts the credentials")
