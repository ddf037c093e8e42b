"""Decides which addresses outgoing connections may use (REGISTRY_EGRESS_ALLOW, ADR 54)."""

import logging
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Self

from registry_data.client.addresses import Address, Network, kind_of, unmapped
from registry_data.client.errors import EgressRefused, RemoteUnavailable

logger = logging.getLogger(__name__)

_HOST: Final = re.compile(
    r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """The exceptions to the rule that connections go to addresses of the internet only."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()  # name and port; None: every port
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse hosts, hosts with ports, addresses and networks, separated by commas or spaces.

        Raises:
            ValueError: an entry is none of these; the message contains the entry.
        """
        hosts: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in filter(None, re.split(r"[,\s]+", text)):
            network = _network(entry)
            if network is not None:
                networks.append(network)
            else:
                hosts.add(_host(entry))
        return cls(frozenset(hosts), tuple(networks))

    def check(self, host: str, port: int | None = None) -> None:
        """Refuse a host that is known to be special without a name server.

        That are literal addresses, in each form that the resolver of the operating system accepts (decimal,
        octal, shortened), and `localhost`. Connections are checked with `resolve`.

        Raises:
            EgressRefused: the host is special, and no entry of the policy allows it.
        """
        if self._allows_host(host, port):
            return
        address = _literal(host)
        if address is not None:
            self._check_address(host, address)
        elif _normalised(host).rpartition(".")[2] == "localhost":
            raise _refusal(host, "a loopback")

    def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """Resolve a host and return its addresses, in the order in which to try them.

        One special address among several refuses the host: a name server that mixes public and internal
        addresses is misconfigured or hostile, and which address is used would be a matter of luck.

        Raises:
            EgressRefused: an address is special, and no entry of the policy allows it.
            RemoteUnavailable: the name cannot be resolved.
        """
        addresses = _resolved(host, port)
        if not self._allows_host(host, port):
            for address in addresses:
                try:
                    self._check_address(host, ip_address(address))
                except EgressRefused:
                    logger.warning("connection refused by REGISTRY_EGRESS_ALLOW: %s is %s", host, address)
                    raise
        return addresses

    def _allows_host(self, host: str, port: int | None) -> bool:
        name = _normalised(host)
        return (name, None) in self.hosts or (port is not None and (name, port) in self.hosts)

    def _check_address(self, host: str, address: Address) -> None:
        address = unmapped(address)
        kind = kind_of(address)
        if kind is not None and not any(address in network for network in self.networks):
            raise _refusal(host, kind)


def _refusal(host: str, kind: str) -> EgressRefused:
    # Not the address that the name resolved to: users of the API are not to explore the internal network.
    return EgressRefused(
        f"{host} has {kind} address, to which no connection is made; "
        "an operator can allow the host or its network in REGISTRY_EGRESS_ALLOW"
    )


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _host(entry: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(entry)
    port = int(match["port"]) if match is not None and match["port"] else None
    is_address = match is not None and (match["host"][0] != "[" or _literal(match["host"]) is not None)
    if match is None or not is_address or (port is not None and not 1 <= port <= 65535):
        raise ValueError(f"{entry!r} is neither a host name, nor host:port, an address or a network")
    return _normalised(match["host"]), port


def _normalised(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _literal(host: str) -> Address | None:
    """The address of a host that is an address, None for a name. The C library parses it: no lookup."""
    try:
        found = socket.getaddrinfo(_normalised(host), None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None
    return ip_address(found[0][4][0])


def _resolved(host: str, port: int) -> tuple[str, ...]:
    try:
        # The resolver times out (resolv.conf(5): 2 attempts of 5 s for each name server).
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RemoteUnavailable(f"the name {host} cannot be resolved") from error
    return _distinct(str(entry[4][0]) for entry in found)


def _distinct(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(addresses))
