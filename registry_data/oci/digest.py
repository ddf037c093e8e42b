"""Digests: the names of content (checklist 22-25)."""

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


# Sorts as its text does, because locks are taken in digest order both here and in the database.
@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest that is known to be well-formed. Made by `parse` or `of`."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `algorithm:hex`; raise DIGEST_INVALID for anything but a full lower-case sha256 or sha512."""
        if not _DIGEST.fullmatch(text):
            raise _refusal(text)
        algorithm, _, encoded = text.partition(":")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = CANONICAL) -> Self:
        """Compute the digest of these bytes; raise DIGEST_INVALID for an unsupported algorithm."""
        return cls(algorithm, hashlib.new(check_algorithm(algorithm), data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


class Hashers:
    """The running digests of one stream, in several algorithms at once."""

    def __init__(self, algorithms: Iterable[str] = (CANONICAL,)) -> None:
        self._running = {name: hashlib.new(check_algorithm(name)) for name in algorithms}

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms that `digest` can answer for."""
        return frozenset(self._running)

    def copy(self) -> "Hashers":
        """The digests as they are now; the two go on apart."""
        copied = Hashers(())
        copied._running = {name: hasher.copy() for name, hasher in self._running.items()}
        return copied

    def joined(self, other: "Hashers") -> "Hashers":
        """The digests of both, which have taken the same bytes."""
        copied = self.copy()
        copied._running |= other.copy()._running  # noqa: SLF001 - one more of this class
        return copied

    def update(self, piece: bytes | memoryview) -> None:
        """Take the stream's next bytes. Long pieces are hashed without holding the interpreter's lock."""
        for hasher in self._running.values():
            hasher.update(piece)

    def digest(self, algorithm: str = CANONICAL) -> Digest:
        """Return the digest of all bytes so far; more may follow. KeyError unless one of `algorithms`."""
        return Digest(algorithm, self._running[algorithm].hexdigest())


def check_algorithm(name: str) -> str:
    """Return the name of a supported algorithm as it is; raise DIGEST_INVALID for any other."""
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
        f"{shown(text)} is not a digest; {algorithm}: takes exactly {length} lower-case hexadecimal digits",
    )
