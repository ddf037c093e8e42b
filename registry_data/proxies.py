"""What trusted reverse proxies say about a request: the client's address, scheme and host (ADR 39).

A proxy in REGISTRY_TRUSTED_PROXIES is believed, anybody else is not, since any client can send these headers.
Both planes apply `client_scope` to the ASGI scope before anything else reads it, so that request.is_secure(),
get_host(), rate limits, challenges and the access log all see the client and not the proxy.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from starlette.types import Scope

Address: TypeAlias = IPv4Address | IPv6Address
Networks: TypeAlias = Collection[IPv4Network | IPv6Network]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

_FORWARDED: Final = b"forwarded"
_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_MAX_HOPS: Final = 32  # the last ones are used: a client may send a header of any length
_MAX_LENGTH: Final = 4096  # characters of a Forwarded header; the last ones are used

_NAMES: Final = frozenset((_FORWARDED, _FOR, _PROTO, _HOST))

# RFC 7239, section 6: an address, in brackets if IPv6, and perhaps a port, which may be obfuscated.
_PORT: Final = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"
_NODE: Final = re.compile(rf"\[(?P<ipv6>[^\]]+)\]{_PORT}|(?P<ipv4>[0-9.]+){_PORT}|(?P<bare>[0-9A-Fa-f:.]+)")
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PAIR: Final = re.compile(rf"\s*([A-Za-z]+)=({_QUOTED}|[^\s;,\"]*)\s*")
_VALID_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LONGEST_HOST: Final = 259  # characters: a DNS name and a port


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one proxy reports about the request that it received."""

    client: str = ""
    scheme: str = ""
    host: str = ""


def client_scope(scope: Scope, trusted: Networks) -> Scope:
    """The ASGI scope as the client's own request would have it, if a trusted proxy sent the request."""
    if not trusted or not any(name in _NAMES for name, _ in scope["headers"]):
        return scope
    peer = parse_address((scope.get("client") or ("",))[0])
    if peer is None or not is_trusted(peer, trusted):
        return scope
    hops = _hops(scope["headers"])
    address, distance = _client_address(peer, [hop.client for hop in hops], trusted)
    scheme = _at([hop.scheme.lower() for hop in hops if hop.scheme], distance)
    host = _at([hop.host for hop in hops if hop.host], distance)
    changed = {**scope, "client": (str(address), 0)}
    if scheme in ("http", "https"):
        changed["scheme"] = scheme
    if len(host) <= _LONGEST_HOST and _VALID_HOST.fullmatch(host):
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        changed["headers"] = [*others, (b"host", host.encode("ascii"))]
    return changed


def parse_address(node: str) -> Address | None:
    """The address of a node of X-Forwarded-For or Forwarded: with or without port, brackets and quotes.

    An IPv4 address that is mapped into IPv6, as a dual-stack socket shows it, is returned as IPv4.
    """
    found = _NODE.fullmatch(node.strip().strip('"').strip())
    if found is None:
        return None
    try:
        address = ip_address(found["ipv6"] or found["ipv4"] or found["bare"])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def is_trusted(address: Address, trusted: Networks) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in trusted)


def _client_address(peer: Address, nodes: Sequence[str], trusted: Networks) -> tuple[Address, int]:
    """The last address that is not a trusted proxy's, and how many trusted proxies are between it and us.

    Without such an address, the client is the first of the trusted ones. Where a node cannot be read, such as
    `unknown`, the client counts as the proxy that connected to us.
    """
    client, distance = peer, 1
    for distance, node in enumerate(reversed([node for node in nodes if node]), start=1):
        address = parse_address(node)
        if address is None:
            return peer, distance
        client = address
        if not is_trusted(address, trusted):
            break
    return client, distance


def _at(values: Sequence[str], distance: int) -> str:
    """The value that the proxy at this distance added.

    Proxies append to the list or replace it; where they replaced it, there are fewer values than proxies.
    """
    return values[-min(distance, len(values))] if values else ""


def _hops(headers: RawHeaders) -> list[_Hop]:
    """The hops in the order in which the request passed them.

    Forwarded is used only without any X-Forwarded header: a proxy that sets those often passes on a Forwarded
    header that the client made up.
    """
    values: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _NAMES:
            values.setdefault(name, []).append(value.decode("latin-1"))
    forwarded = ",".join(values.pop(_FORWARDED, ()))
    if not values:
        return _parse_forwarded(forwarded)
    lists = {name: _last_items(",".join(found)) for name, found in values.items()}
    return [
        *(_Hop(client=item) for item in lists.get(_FOR, ())),
        *(_Hop(scheme=item) for item in lists.get(_PROTO, ())),
        *(_Hop(host=item) for item in lists.get(_HOST, ())),
    ]


def _last_items(value: str) -> list[str]:
    return [item.strip() for item in value.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]]


def _parse_forwarded(value: str) -> list[_Hop]:
    """The last elements of a Forwarded header (RFC 7239, section 4), those after a malformed one at most."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    position = 0
    value = ",".join(_last_items(value))[-_MAX_LENGTH:]
    while position < len(value):
        found = _PAIR.match(value, position)
        end = found.end() if found else position
        separator = value[end : end + 1]
        if found is None or separator not in ("", ",", ";"):
            # A client may send anything; the element that a proxy appends after it is still valid.
            hops, pairs = [], {}
            position = value.find(",", end) + 1 or len(value)
            continue
        pairs[found[1].lower()] = _unquoted(found[2])
        position = end
        if separator != ";":
            hops.append(_Hop(pairs.get("for", ""), pairs.get("proto", ""), pairs.get("host", "")))
            pairs = {}
        position += 1
    return hops


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
