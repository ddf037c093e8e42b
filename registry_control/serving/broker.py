"""The broker that needs no server: a folder of messages, one file each.

A message appears whole, by a rename; one that cannot be read is dropped; taking one removes it. Losing
one costs time only: messages are nudges, the rows are the work (invariant 8). Kombu has a transport like
this, but its reader may meet a file that is half written, and then stops the worker.
"""

import logging
import shutil
import time
from pathlib import Path
from queue import Empty
from typing import Any, Final
from uuid import uuid4

from django.conf import settings
from kombu import Connection
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)

_TAKEN: Final = ".taken"
_DRAFT: Final = ".draft"
_WAIT: Final = 0.5  # seconds


def make_folder() -> None:
    """Make the folder when it is needed and not there."""
    if settings.REDIS_URL is None:
        _folder().mkdir(parents=True, exist_ok=True, mode=0o700)


def empty_folder() -> None:
    """Forget what an earlier run left: a worker that starts looks at all the rows anyway."""
    if settings.REDIS_URL is None:
        shutil.rmtree(_folder(), ignore_errors=True)
        make_folder()


class Channel(virtual.Channel):
    """Puts and takes messages. Bindings are declared by each process for itself, in memory."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        # Names sort by age; two senders in the same nanosecond still have two names.
        path = _folder() / f"{time.time_ns():020d}_{uuid4().hex}.{queue}.msg"
        draft = path.with_suffix(_DRAFT)
        draft.write_text(dumps(message), encoding="utf-8")
        draft.rename(path)

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ANN401, ARG002 - kombu's
        for path in _messages(queue):
            message = _take(path)
            if message is not None:
                return message
        raise Empty

    def _size(self, queue: str) -> int:
        return len(_messages(queue))

    def _purge(self, queue: str) -> int:
        return sum(_take(path) is not None for path in _messages(queue))


class Transport(virtual.Transport):
    """What the setting `broker_transport` names."""

    Channel = Channel
    driver_type = driver_name = "folder"

    def drain_events(self, connection: Connection, timeout: float | None = None, **_: Any) -> None:
        """Wait for a message, never for long: between two waits the worker looks whether it shall end."""
        super().drain_events(connection, timeout=min(timeout or _WAIT, _WAIT))

    def driver_version(self) -> str:
        """Kombu asks when it reports errors."""
        return "1"


def _folder() -> Path:
    return Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["folder"])


def _messages(queue: str) -> list[Path]:
    return sorted(_folder().glob(f"*.{queue}.msg"))


def _take(path: Path) -> dict[str, Any] | None:
    taken = path.with_suffix(_TAKEN)
    try:
        path.rename(taken)
        content = taken.read_bytes()
        taken.unlink()
        message: dict[str, Any] = loads(content.decode())
    except FileNotFoundError:
        return None  # Another worker was faster.
    except ValueError as error:
        logger.warning("dropped a message that cannot be read: %s", error)
        return None
    return message
