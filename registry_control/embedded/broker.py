"""The broker that needs no server: messages are files in a folder.

Kombu's own filesystem transport writes a message under the name by which it is found, so a worker may
read one that is half written, or was never finished because its sender was killed, and stops with a
JSON error. Here a message appears whole, and one that cannot be read is dropped: messages are only
nudges (invariant 8).
"""

import logging
import shutil
import time
from pathlib import Path
from queue import Empty
from typing import Any, Final
from uuid import uuid4

from django.conf import settings
from kombu.transport import filesystem
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)

_TAKEN: Final = ".taken"
_DRAFT: Final = ".draft"


def folder() -> Path | None:
    """Where the messages are; None when Redis is the broker."""
    options: dict[str, str] = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    return Path(options["data_folder_in"]) if "data_folder_in" in options else None


def make_folder() -> None:
    """Make the folder when it is needed and not there."""
    if (path := folder()) is not None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)


def empty_folder() -> None:
    """Remove what an earlier run left: its messages are old, and some may be broken."""
    if (path := folder()) is not None:
        shutil.rmtree(path, ignore_errors=True)
        make_folder()


class Channel(filesystem.Channel):
    """Stores and takes whole messages."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        # Names sort by age; two senders in the same nanosecond still have two names.
        path = Path(self.data_folder_out, f"{time.time_ns():020d}_{uuid4().hex}.{queue}.msg")
        draft = path.with_suffix(_DRAFT)
        draft.write_text(dumps(payload), encoding="utf-8")
        draft.rename(path)

    def _get(self, queue: str) -> dict[str, Any]:  # type: ignore[override]
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            payload = _take(path)
            if payload is not None:
                return payload
        raise Empty


class Transport(filesystem.Transport):
    """What the setting `broker_transport` names."""

    Channel = Channel


def _take(path: Path) -> dict[str, Any] | None:
    taken = path.with_suffix(_TAKEN)
    try:
        path.rename(taken)
        text = taken.read_text(encoding="utf-8")
        taken.unlink()
        payload: dict[str, Any] = loads(text)
    except FileNotFoundError:
        return None  # Another worker was faster.
    except ValueError as error:
        logger.warning("dropped a message that cannot be read: %s", error)
        return None
    return payload
