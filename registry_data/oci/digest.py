"""Digests: content addresses such as `sha256:<hex>` (OCI 22-25)."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

ALGORITHMS: Final = ("sha256", "sha512")
CANONICAL: Final = "sha256"

_HEX_LENGTHS: Final = {name: hashlib.new(name).digest_size * 2 for name in ALGORITHMS}
_DIGEST: Final = re.compile("|".join(f"{name}:[0-9a-f]{{{length}}}" for name, length in _HEX_LENGTHS.items()))


# Ordered like its text: rows are locked in digest order, in Python and in SQL (invariant 11).
@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A well-formed digest. Create it with `parse` or `of`."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `algorithm:hex`; raise DIGEST_INVALID unless it is a lower-case sha256 or sha512 digest."""
        if not _DIGEST.fullmatch(text):
            raise _refusal(text)
        algorithm, _, encoded = text.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = CANONICAL) -> Self:
        """Compute the digest of `data`; raise DIGEST_INVALID if the algorithm is not supported."""
        return cls(algorithm, hashlib.new(check_algorithm(algorithm), data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


class Hashers:
    """Incremental digests of one stream, in several algorithms at once."""

    def __init__(self, algorithms: Iterable[str] = (CANONICAL,)) -> None:
        self._running = {name: hashlib.new(check_algorithm(name)) for name in algorithms}

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms that `digest` accepts."""
        return frozenset(self._running)

    def copy(self) -> "Hashers":
        """Copy the current state; later updates of one do not affect the other."""
        copied = Hashers(())
        copied._running = {name: hasher.copy() for name, hasher in self._running.items()}
        return copied

    def joined(self, other: "Hashers") -> "Hashers":
        """Combine the algorithms of two objects that have hashed the same bytes."""
        copied = self.copy()
        copied._running |= other.copy()._running  # noqa: SLF001 - an object of this class
        return copied

    def update(self, piece: bytes | memoryview) -> None:
        """Hash the next bytes of the stream. hashlib releases the interpreter lock for long pieces."""
        for hasher in self._running.values():
            hasher.update(piece)

    def digest(self, algorithm: str = CANONICAL) -> Digest:
        """Return the digest of all bytes so far. Raises KeyError if the algorithm is not in `algorithms`."""
        return Digest(algorithm, self._running[algorithm].hexdigest())


def check_algorithm(name: str) -> str:
    """Return `name` if it is a supported algorithm; raise DIGEST_INVALID otherwise."""
    if name not in _HEX_LENGTHS:
        supported = " or ".join(ALGORITHMS)
        raise ProtocolError(
            ErrorCode.DIGEST_INVALID, f"digest algorithm {shown(name)} is not supported; use {supported}"
        )
    return name


def _refusal(text: str) -> ProtocolError:
    algorithm, colon, _ = text.partition(":")
    if not colon:
        return ProtocolError(
            ErrorCode.DIGEST_INVALID,
            f"{shown(text)} is not a digest; write it as sha256:<64 hexadecimal digits>",
        )
    length = _HEX_LENGTHS[check_algorithm(algorithm)]
    return ProtocolError(
        ErrorCode.DIGEST_INVALID,
        f"{shown(text)} is not a digest; {algorithm}: needs exactly {length} lower-case hexadecimal digits",
    )
