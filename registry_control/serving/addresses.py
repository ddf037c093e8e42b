"""Validates the addresses on which the servers will listen."""

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import ip_address

from registry_control.settings.environment import Address, ConfigurationError


def ip_of(address: Address, variable: str) -> str:
    """The IP address to listen on.

    Raises:
        ConfigurationError: the host name cannot be resolved.
    """
    try:
        return str(_resolved(address)[1][0])
    except socket.gaierror as error:
        raise ConfigurationError(
            f"{variable}: {address.host} is not a known host: {error.strerror}"
        ) from error


def reachable(address: Address) -> Address:
    """The address at which this machine can reach a server that listens on it."""
    try:
        ip = ip_address(address.host)
    except ValueError:
        return address
    if not ip.is_unspecified:
        return address
    return Address("127.0.0.1" if ip.version == 4 else "::1", address.port)


def check_addresses(addresses: Mapping[str, Address]) -> None:
    """Check that the servers can listen on all addresses (by variable), at the same time.

    The servers set SO_REUSEPORT, so they would share a port with another program that does, such as a
    forgotten copy of themselves, without an error.

    Raises:
        ConfigurationError: the first address that cannot be used, why, and what to do.
    """
    with ExitStack() as held:
        for variable, address in addresses.items():
            ip_of(address, variable)
            try:
                held.enter_context(_listening(address))
            except OSError as error:
                raise ConfigurationError(f"{variable}: {_reason(error, address, variable)}") from error


def _resolved(address: Address) -> tuple[int, tuple[str, int]]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return family, (str(place[0]), address.port)


def _listening(address: Address) -> socket.socket:
    family, place = _resolved(address)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Like the servers: a port with connections in TIME_WAIT can be used.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _reason(error: OSError, address: Address, variable: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use already: stop the program that listens there,"
            f" or set {variable} to another host:port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{address} is not an address of this machine: set {variable} to one that is, or to 0.0.0.0:port"
        )
    return f"cannot listen on {address} ({error.strerror}): set {variable} to another host:port"
