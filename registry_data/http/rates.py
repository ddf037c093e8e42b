"""Whether a request comes too soon after others of the same caller (checklist 16)."""

import math
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.messages import Request
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.registry.authorization import Credentials
from registry_data.registry.service import name_of_caller


async def check_rate(plane: AppContext, request: Request) -> None:
    """Count the request.

    Raises:
        ProtocolError: 429 with the time after which there will be an answer.
    """
    if plane.rates is None:
        return
    caller, limit = await _caller(plane, request)
    seconds = plane.rates.take(caller.encode(), limit) if limit else 0.0
    if seconds:
        raise ProtocolError(
            ErrorCode.TOOMANYREQUESTS,
            f"more than {limit} requests a minute: try again in {math.ceil(seconds)} s",
            headers={"Retry-After": str(math.ceil(seconds))},
        )


async def _caller(plane: AppContext, request: Request) -> tuple[str, int]:
    """Under which name to count, and how many requests a minute it may make.

    Who proves nothing counts as the address it comes from: else every wrong key would begin anew.
    """
    who = credentials(request)
    name = "" if who == Credentials() else await plane.bridge.read(request.stamp, name_of_caller, who)
    if name:
        return name, plane.config.rate_limit
    forwarded = request.headers.getlist("x-forwarded-for")
    address = client_address(request.peer, ",".join(forwarded), plane.config.trusted_proxies)
    return f"address {block(address)}", plane.config.rate_limit_anonymous


def client_address(
    peer: str, forwarded: str, trusted: Collection[IPv4Network | IPv6Network]
) -> IPv4Address | IPv6Address | str:
    """The last address on the way here that is none of our own proxies."""
    for text in [peer, *reversed(forwarded.split(","))]:
        try:
            address = _plain(ip_address(text.strip()))
        except ValueError:
            break
        if not any(address in network for network in trusted):
            return address
    return peer


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address as one, also where a socket for both kinds shows it as one of IPv6."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def block(address: IPv4Address | IPv6Address | str) -> str:
    """What counts as one caller: of IPv6 the block that a single customer gets (RFC 6177)."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)
