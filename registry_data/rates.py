"""Rate limits: a table of a node's callers that the processes of both planes share.

The generic cell rate algorithm: each caller has one number, its theoretical arrival time. It needs no windows
and no resets, and allows a burst of one minute's requests.
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
_AHEAD: Final = 2 * _WINDOW  # further ahead than any caller can be
_ENTRY: Final = struct.Struct("=Qd")  # fingerprint of the caller, theoretical arrival time
_ENTRIES: Final = 1 << 18
_TRIED: Final = 8  # entries that are tried for a caller


def anonymous_caller(address: str) -> str:
    """The name under which a client without credentials is counted: its address.

    For IPv6 it is the /64 network, which a single customer gets (RFC 6177).
    """
    parsed = parse_address(address)
    if isinstance(parsed, IPv6Address):
        return f"address {IPv6Network((int(parsed), 64), strict=False)}"
    return f"address {parsed or address}"


def wait(now: float, due: float, per_minute: int) -> tuple[float, float]:
    """The seconds that a caller must wait (0: none), and its new theoretical arrival time.

    `due` is its previous one, 0 for none. A rejected request is not counted.
    """
    # After a reboot the clock starts again, and old times are far from now.
    due = due if now < due <= now + _AHEAD else now
    over = due + _WINDOW / per_minute - (now + _WINDOW)
    # Sums of floats are not exact: tolerate a hundredth of a request.
    return (over, due) if over > _WINDOW / per_minute / 100 else (0.0, due + _WINDOW / per_minute)


class Rates:
    """The table. Processes do not lock it: two simultaneous requests of a caller may count as one."""

    def __init__(self, path: Path) -> None:
        """Map the file, and create it if it does not exist.

        Raises:
            OSError: the file cannot be created or mapped.
        """
        size = _ENTRIES * _ENTRY.size
        with path.open("a+b") as file:
            file.truncate(size)
            self._table = mmap.mmap(file.fileno(), size)

    def take(self, caller: bytes, per_minute: int) -> float:
        """Count a request. Returns 0, or the seconds after which the caller may try again."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        fingerprint = int.from_bytes(blake2b(caller, digest_size=8).digest(), "big") or 1
        offset, due = self._entry(fingerprint, now)
        seconds, due = wait(now, due, per_minute)
        _ENTRY.pack_into(self._table, offset, fingerprint, due)
        return seconds

    def _entry(self, fingerprint: int, now: float) -> tuple[int, float]:
        """The offset of the caller's entry, or of the entry to replace: the one that expires first."""
        found: list[tuple[float, int]] = []
        for step in range(_TRIED):
            offset = (fingerprint + step) % _ENTRIES * _ENTRY.size
            whose, due = _ENTRY.unpack_from(self._table, offset)
            if whose == fingerprint:
                return offset, due
            found.append((due if whose and due <= now + _AHEAD else 0.0, offset))
        return min(found)[1], 0.0
