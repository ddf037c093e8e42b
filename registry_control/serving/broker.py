"""A broker without a server: a folder of messages for each queue, one file each (ADR 14).

A message appears whole, by a rename; a file that cannot be parsed is dropped; receiving a message removes its
file. A task has no arguments, so a message replaces the one of its task that still waits: without a worker,
the folder has one message for each task. Losing a message costs time only: tasks are messages, the rows
are the jobs (invariant 8). Kombu has a transport of files too, but its reader may read a file that is half
written, and then stops the worker.
"""

import logging
import shutil
import time
from pathlib import Path
from queue import Empty
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from django.conf import settings
from kombu import Connection
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)

_MESSAGE: Final = ".msg"
_DRAFT: Final = ".draft"
_RECEIVED: Final = ".received"
_POLL: Final = 0.5  # seconds


def make_folder() -> None:
    """Create the folder of the broker, unless Redis is configured."""
    if settings.REDIS_URL is None:
        _root().mkdir(parents=True, exist_ok=True, mode=0o700)


def empty_folder() -> None:
    """Delete the messages of an earlier run: a starting worker enqueues every task anyway."""
    if settings.REDIS_URL is None:
        shutil.rmtree(_root(), ignore_errors=True)
        make_folder()


class Channel(virtual.Channel):
    """Sends and receives messages. Each process declares its bindings for itself, in memory."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        folder = _folder(queue)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Names sort by age; two senders in the same nanosecond still have different names.
        name = f"{time.time_ns():020d}_{uuid4().hex}"
        suffix = f"{_task_of(message)}{_MESSAGE}"
        draft = folder / f"{name}{_DRAFT}"
        # If a worker receives that one meanwhile, its name is free again.
        waiting = next(folder.glob(f"*{suffix}"), None) if suffix != _MESSAGE else None
        try:
            draft.write_text(dumps(message), encoding="utf-8")
            draft.rename(waiting or folder / f"{name}{suffix}")
        except OSError:  # The disk is full, say: half a message must not use it up too.
            draft.unlink(missing_ok=True)
            raise

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ANN401, ARG002 - kombu's
        for path in _messages(queue):
            message = _receive(path)
            if message is not None:
                return message
        raise Empty

    def _size(self, queue: str) -> int:
        return len(_messages(queue))

    def _purge(self, queue: str) -> int:
        return sum(_receive(path) is not None for path in _messages(queue))


class Transport(virtual.Transport):
    """The class that the setting `CELERY_BROKER_TRANSPORT` names."""

    Channel = Channel
    driver_type = driver_name = "folder"

    def drain_events(self, connection: Connection, timeout: float | None = None, **_: Any) -> None:
        """Wait briefly for a message: the worker checks between two waits whether it must stop."""
        super().drain_events(connection, timeout=min(timeout or _POLL, _POLL))

    def driver_version(self) -> str:
        """Kombu includes it in error reports."""
        return "2"


def _root() -> Path:
    return Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["folder"])


def _folder(queue: str) -> Path:
    """One folder per queue: the pattern `*.bulk.msg` would match the messages of `x.bulk` too."""
    return _root() / quote(queue, safe="")


def _task_of(message: dict[str, Any]) -> str:
    """The end of a message's file name: its task, if it is called without arguments, or else nothing."""
    headers = message.get("headers") or {}
    if "task" not in headers or (headers.get("argsrepr"), headers.get("kwargsrepr")) != ("()", "{}"):
        return ""
    return f"@{quote(headers['task'], safe='')}"


def _messages(queue: str) -> list[Path]:
    return sorted(_folder(queue).glob(f"*{_MESSAGE}"))


def _receive(path: Path) -> dict[str, Any] | None:
    received = path.with_name(f"{uuid4().hex}{_RECEIVED}")
    try:
        path.rename(received)
        content = received.read_bytes()
        received.unlink()
        message: dict[str, Any] = loads(content.decode())
    except FileNotFoundError:
        return None  # Another worker was faster.
    except ValueError as error:
        logger.warning("dropped a message that cannot be parsed: %s", error)
        return None
    return message
