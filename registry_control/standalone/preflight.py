"""What is tried out before anything starts, so that a wrong setting is one line and not a trace."""

from typing import Final
from urllib.parse import urlsplit

from registry_control.settings.environment import ConfigurationError
from registry_data.storage.base import StorageError
from registry_data.storage.factory import open_store

_REDIS_TIMEOUT: Final = 3  # seconds


def check_storage(url: str) -> None:
    """See that the blob store can be used, and make its folders.

    Raises:
        ConfigurationError: it cannot.
    """
    try:
        open_store(url).check()
    except (StorageError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"REGISTRY_STORAGE_URL: the blob store cannot be used: {one_line(error)}"
        ) from error


def check_redis(url: str) -> None:
    """See that Redis answers.

    Raises:
        ConfigurationError: it does not.
    """
    import redis  # Only where it is the broker: importing it takes as long as a third of a start.

    place = urlsplit(url).netloc.rpartition("@")[2]  # without the password
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=_REDIS_TIMEOUT) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise ConfigurationError(
            f"REGISTRY_REDIS_URL: Redis at {place} does not answer: {one_line(error)}"
        ) from error


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
