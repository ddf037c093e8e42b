"""What is looked at before anything starts, so that a wrong setting is one line and not a trace.

Every check raises `ConfigurationError` with a line that names the variable and what to do.
"""

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final
from urllib.parse import urlsplit

import redis

from registry_control.settings.environment import Address, ConfigurationError
from registry_data.storage.base import StorageError
from registry_data.storage.opening import open_store

_REDIS_TIMEOUT: Final = 3  # seconds


def ip_of(address: Address, variable: str) -> str:
    """The IP address to listen on; servers take no names."""
    try:
        return str(_resolved(address)[1][0])
    except socket.gaierror as error:
        raise ConfigurationError(
            f"{variable}: {address.host} is not a known host: {error.strerror}"
        ) from error


def check_addresses(addresses: Mapping[str, Address]) -> None:
    """See that all addresses (by variable) can be listened on, at the same time.

    The servers themselves share a port with whoever lets them (SO_REUSEPORT), also with a copy of
    themselves that was forgotten; so this must look before them.
    """
    with ExitStack() as held:
        for variable, address in addresses.items():
            ip_of(address, variable)
            try:
                held.enter_context(_listening(address))
            except OSError as error:
                raise ConfigurationError(f"{variable}: {_why_not(error, address, variable)}") from error


def check_storage(url: str) -> None:
    """See that the blob store can be used, and make its folders."""
    try:
        open_store(url).check()
    except (StorageError, OSError) as error:
        raise ConfigurationError(
            f"REGISTRY_STORAGE_URL: the blob store cannot be used: {one_line(error)}"
        ) from error


def check_redis(url: str) -> None:
    """See that Redis answers."""
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


def _resolved(address: Address) -> tuple[int, tuple[str, int]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return family, (str(place[0]), address.port)


def _listening(address: Address) -> socket.socket:
    family, place = _resolved(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As the servers do: a port with connections that have just ended is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _why_not(error: OSError, address: Address, variable: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use already: stop the program that listens there,"
            f" or set {variable} to another host:port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is no address of this machine: set {variable} to one that is, or to 0.0.0.0:port"
    return f"cannot listen on {address}: {error.strerror}: set {variable} to another host:port"
