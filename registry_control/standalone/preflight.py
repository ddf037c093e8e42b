"""Checks before the start, so that an invalid setting causes a one-line error instead of a traceback."""

from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from registry_control.celery import app
from registry_control.settings.environment import ConfigurationError
from registry_data.storage.base import StorageError
from registry_data.storage.factory import open_store

_BROKER_TIMEOUT: Final = 5  # seconds


def check_storage(url: str) -> None:
    """Check that the blob store can be used, and create its folders.

    Raises:
        ConfigurationError: it cannot be used.
    """
    try:
        open_store(url).check()
    except (StorageError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"REGISTRY_STORAGE_URL: the blob store cannot be used: {one_line(error)}"
        ) from error


def check_broker() -> None:
    """Send a message to the broker and receive it, over the connection that Celery itself uses.

    Raises:
        ConfigurationError: the broker does not respond or cannot store messages, or its module is missing.
    """
    try:
        with app.connection_for_write() as connection, connection.SimpleQueue(_queue_name()) as queue:
            queue.put("works")
            queue.get(timeout=_BROKER_TIMEOUT).ack()
            queue.queue.delete()
    except Exception as error:  # the exception classes depend on the transport
        raise ConfigurationError(f"{_broker_name()} cannot be used: {one_line(error)}") from error


def _queue_name() -> str:
    """Unique, so that nodes that start concurrently do not receive each other's message."""
    return f"preflight-{uuid4().hex}"


def _broker_name() -> str:
    """The broker in error messages, without its password."""
    url = urlsplit(str(app.conf.broker_url))
    if url.scheme not in ("redis", "rediss"):
        return "REGISTRY_STATE_DIR: the file-based broker"
    return f"REGISTRY_REDIS_URL: Redis at {url.netloc.rpartition('@')[2]}"


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
