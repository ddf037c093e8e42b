"""Rate limits: a table of a node's callers that the processes of both planes share.

Each caller has one number, the time at which all that it was let do would be done at the allowed rate (the
generic cell rate algorithm): no window that begins, nothing to reset, and a minute's worth may come at once.
"""

import mmap
import struct
import time
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Final

from registry_data.proxies import parse_address

_WINDOW: Final = 60.0  # seconds
_AHEAD: Final = 2 * _WINDOW  # more than anybody can be
_ENTRY: Final = struct.Struct("=Qd")  # fingerprint of the caller, theoretical arrival time
_ENTRIES: Final = 1 << 18
_TRIED: Final = 8  # entries that a caller's may be


def anonymous_caller(address: str) -> str:
    """The name under which a client without credentials is counted: its address.

    For IPv6 it is the /64 network, which a single customer gets (RFC 6177).
    """
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return f"address {IPv6Network((int(parsed), 64), strict=False)}"
    return f"address {parsed or address}"


def wait(now: float, due: float, per_minute: int) -> tuple[float, float]:
    """How long a caller must wait, in seconds (0: not at all), and the time that is then noted for it.

    `due` is what was noted last, 0 for nothing. A refused request is not counted.
    """
    # A clock that began anew leaves times behind that are far from now.
    due = due if now < due <= now + _AHEAD else now
    over = due + _WINDOW / per_minute - (now + _WINDOW)
    # A hundredth of a request is no reason: sums of floats are not exact.
    return (over, due) if over > _WINDOW / per_minute / 100 else (0.0, due + _WINDOW / per_minute)


class Rates:
    """The table. Two processes that note the same caller in the same microsecond may count one for two."""

    def __init__(self, path: Path) -> None:
        """Make the file, or share the one that is there.

        Raises:
            OSError: it cannot be made.
        """
        size = _ENTRIES * _ENTRY.size
        with path.open("a+b") as file:
            file.truncate(size)
            self._table = mmap.mmap(file.fileno(), size)

    def take(self, caller: bytes, per_minute: int) -> float:
        """Count a request of somebody. Returns how many seconds it must wait instead, or 0."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        fingerprint = int.from_bytes(blake2b(caller, digest_size=8).digest(), "big") or 1
        offset, due = self._entry(fingerprint, now)
        seconds, due = wait(now, due, per_minute)
        _ENTRY.pack_into(self._table, offset, fingerprint, due)
        return seconds

    def _entry(self, fingerprint: int, now: float) -> tuple[int, float]:
        """Where the caller's entry is, or may be made: instead of the one that ends first."""
        found: list[tuple[float, int]] = []
        for step in range(_TRIED):
            offset = (fingerprint + step) % _ENTRIES * _ENTRY.size
            whose, due = _ENTRY.unpack_from(self._table, offset)
            if whose == fingerprint:
                return offset, due
            found.append((due if whose and due <= now + _AHEAD else 0.0, offset))
        return min(found)[1], 0.0
