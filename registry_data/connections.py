"""How many connections each client address has to one port of this machine, over all processes that serve it.

The kernel knows: sock_diag(7) lists the established connections of a port. A process asks it only when the
address of a new connection may be near the limit, at most about a tenth of the time (ADR 40).
"""

import asyncio
import errno
import logging
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache, partial
from ipaddress import IPv6Network
from typing import Final

from registry_data.proxies import Networks, is_trusted, parse_address

logger = logging.getLogger(__name__)

TOO_MANY: Final = "too many connections from this address at once: close some, and try again"

_UNSUPPORTED: Final = frozenset(
    (errno.EPERM, errno.EACCES, errno.ENOENT, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EINVAL)
)
_FRESH: Final = 1.0  # seconds after which a listing is repeated when a connection is new
_SHARE: Final = 10  # a listing is repeated after this many times the time that it took
_REMEMBERED: Final = 1024  # addresses
_LONGEST_PAUSE: Final = 0.5  # seconds

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/inet_diag.h>, <net/tcp_states.h>
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_REQUEST_DUMP: Final = 0x301
_ERROR, _DONE = 2, 3
_STATES: Final = 1 << 1 | 1 << 8  # ESTABLISHED, CLOSE_WAIT: those that occupy the server
_BYTECODE_ATTRIBUTE: Final = 1
_LOCAL_PORT_AT_LEAST, _LOCAL_PORT_AT_MOST = 2, 3
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")
_OPERATION: Final = struct.Struct("=BBH")
_ENTRY: Final = struct.Struct(">4xHH16x16s")  # ports and remote address, of struct inet_diag_msg
_INODE: Final = struct.Struct("=68xI")
_RECEIVED: Final = 256 * 1024  # bytes of a part of a listing


class Connections:
    """Decides whether a connection is one of the first `limit` of its address."""

    def __init__(self, address: str, port: int, *, limit: int, processes: int, trusted: Networks) -> None:
        """`address` and `port` are where `processes` processes listen; `trusted` addresses have no limit."""
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._port, self._limit, self._processes = port, limit, processes
        self._ranks: dict[str, dict[int, int]] = {}
        # The first `limit` connections of each IPv4 address: most requests come on one of them.
        self._admitted: frozenset[tuple[str, int]] = frozenset()
        self._is_exempt = lru_cache(_REMEMBERED)(partial(_is_exempt, trusted=trusted))
        self._new: dict[str, int] = defaultdict(int)  # connections by address that came after the listing
        self._listed = self._pause = 0.0
        self._can_list = True
        self._listing: asyncio.Future[None] | None = None

    def is_admitted(self, client: tuple[str, int]) -> bool:
        """Whether the last listing has the connection from this address and port among the first ones."""
        return client in self._admitted

    async def admits(self, client: tuple[str, int]) -> bool:
        """Whether a request on the connection from this address and port may be served."""
        name, port = _name(client[0]), client[1]
        if self._is_admitted(name, port) or not self._can_list:
            return True
        if self._is_exempt(client[0]):
            return True
        self._new[name] += 1
        for _ in range(2):  # a listing that has begun already may not have this connection
            if self._possible(name) < self._limit:
                break
            await asyncio.shield(self._list())
            if port in self._ranks.get(name, {}):
                return self._is_admitted(name, port)
        self._list_soon(name)
        return True

    def _is_admitted(self, name: str, port: int) -> bool:
        return self._ranks.get(name, {}).get(port, self._limit) < self._limit

    def _possible(self, name: str) -> int:
        """How many connections the address may have by now, if each process has as many new ones."""
        return len(self._ranks.get(name, ())) + self._new[name] * self._processes

    def _list_soon(self, name: str) -> None:
        """Repeat a listing that is old, without waiting for it."""
        age = time.monotonic() - self._listed
        if age >= _FRESH or (self._possible(name) >= self._limit // 2 and age >= self._pause):
            self._list()

    def _list(self) -> "asyncio.Future[None]":
        """List all connections in a thread, once for all requests that wait for it."""
        if self._listing is None:
            self._listing = asyncio.ensure_future(self._refresh())
        return self._listing

    async def _refresh(self) -> None:
        # Requests that a listing must decide about wait for it: near the limit there are only so many.
        await asyncio.sleep(self._listed + self._pause - time.monotonic())
        began = time.monotonic()
        try:
            self._ranks = await asyncio.to_thread(ranks, self._family, self._port)
            self._admitted = frozenset(
                (name, port)
                for name, by_port in self._ranks.items()
                for port, rank in by_port.items()
                if rank < self._limit
            )
        except OSError as error:
            # Other errors pass, such as too many open files: the next listing tries again.
            self._can_list = error.errno not in _UNSUPPORTED
            kept = "the last list is used" if self._can_list else "connections are not limited"
            logger.warning("the kernel did not list connections, so %s: %s", kept, error)
        finally:
            self._new.clear()
            self._listed = time.monotonic()
            self._pause = min((self._listed - began) * _SHARE, _LONGEST_PAUSE)
            self._listing = None


def ranks(family: int, port: int) -> dict[str, dict[int, int]]:
    """The rank of each connection to a local port among those of its address, by address and remote port.

    Older connections have lower ranks, as far as the inode numbers tell, which accepting assigns.

    Raises:
        OSError: the kernel has no sock_diag, or does not let this process use it.
    """
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry in _entries(family, port):
        _, remote_port, remote = _ENTRY.unpack_from(entry)
        (inode,) = _INODE.unpack_from(entry)
        address = socket.inet_ntop(family, remote if family == socket.AF_INET6 else remote[:4])
        # A connection that no process has accepted yet has the inode 0, and comes last.
        found[_name(address)].append((inode or 1 << 32, remote_port))
    return {
        name: {remote_port: rank for rank, (_, remote_port) in enumerate(sorted(entries))}
        for name, entries in found.items()
    }


def _is_exempt(client: str, trusted: Networks) -> bool:
    """Whether connections of this address have no limit: a trusted proxy, or no IP address."""
    address = parse_address(client)
    return address is None or is_trusted(address, trusted)


def _name(address: str) -> str:
    """What counts as one address: of IPv6 the /64 network, which a single customer gets (RFC 6177)."""
    if ":" not in address:
        return address
    parsed = parse_address(address)
    if parsed is None or parsed.version == 4:
        return str(parsed or address)
    return str(IPv6Network((int(parsed), 64), strict=False))


def _entries(family: int, port: int) -> Iterator[bytes]:
    """The kernel's descriptions (struct inet_diag_msg) of the connections to a local port."""
    # Two comparisons, each followed by its operand; a jump beyond the end, by 4 bytes more, rejects a socket.
    code = b"".join(
        _OPERATION.pack(comparison, 8, reject) + _OPERATION.pack(0, 0, port)
        for comparison, reject in ((_LOCAL_PORT_AT_LEAST, 20), (_LOCAL_PORT_AT_MOST, 12))
    )
    request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, _STATES)
    body = request + _ATTRIBUTE.pack(_ATTRIBUTE.size + len(code), _BYTECODE_ATTRIBUTE) + code
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while True:
            received, offset = kernel.recv(_RECEIVED), 0
            while offset < len(received):
                length, kind, *_ = _HEADER.unpack_from(received, offset)
                content = received[offset + _HEADER.size : offset + length]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", content)[0], "sock_diag")
                yield content
                offset += length + 3 & ~3
