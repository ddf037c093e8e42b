"""Running digests of uploads, so that the request that closes an upload need not read its bytes again.

hashlib cannot serialize the state of a hash. It is cached in the memory of the process that received the last
bytes; after long requests the digest is also saved in the session's row, for other processes. If neither
matches the upload's end, the bytes are read from the storage again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from registry_control.catalog.services.uploads import Session
from registry_control.common.lru_cache import LruCache
from registry_data.oci.digest import Digest, Hashers
from registry_data.storage.base import Unavailable, UploadId

# Reading this many bytes again is cheaper than saving their digest, and than switching to another thread.
CHEAP_TO_REREAD: Final = 8 * 1024 * 1024  # bytes

# Values: the number of hashed bytes, and the state after them.
_cache: Final = LruCache[UploadId, tuple[int, Hashers]](1000)


@dataclass(slots=True)
class UploadHashes:
    """Digests of an open upload: of the bytes before the current request, and of all bytes.

    A state is None if it is not known. Not thread-safe.
    """

    upload_id: UploadId
    session: Session
    began: int  # offset at which the current request began
    at_began: Hashers | None  # state after the first `began` bytes
    current: Hashers | None  # state after the first `hashed` bytes
    hashed: int

    @classmethod
    def resume(cls, upload_id: UploadId, session: Session, offset: int) -> "UploadHashes":
        """Take the state at an upload's end from the cache, or begin one for an empty upload."""
        if offset == 0:
            current: Hashers | None = Hashers([session.algorithm])
        else:
            hashed, cached = _cache.pop(upload_id) or (0, None)
            current = cached if hashed == offset else None
        return cls(upload_id, session, offset, current and current.copy(), current, offset)

    def update(self, piece: bytes) -> None:
        """Hash the next piece."""
        if self.current is not None:
            self.current.update(piece)
            self.hashed += len(piece)

    def digest_of_hashed(self, algorithm: str) -> Digest | None:
        """The digest of all hashed bytes, whether they are written already or not."""
        if self.current is None or algorithm not in self.current.algorithms:
            return None
        return self.current.digest(algorithm)

    def digest_at(self, end: int, algorithm: str) -> Digest | None:
        """The digest of an upload of `end` bytes, from the running state or from the session's row."""
        running = self.digest_of_hashed(algorithm) if self.hashed == end else None
        return running or self._saved_digest(end, algorithm)

    def digest_at_began(self, algorithm: str) -> Digest | None:
        """The digest of the bytes before the current request."""
        if self.at_began is not None and algorithm in self.at_began.algorithms:
            return self.at_began.digest(algorithm)
        return self._saved_digest(self.began, algorithm)

    def _saved_digest(self, end: int, algorithm: str) -> Digest | None:
        session = self.session
        matches = session.hashed_size == end and session.hashed_digest.startswith(f"{algorithm}:")
        return Digest.parse(session.hashed_digest) if matches else None

    def reread(self, pieces: Iterable[bytes], size: int, algorithm: str) -> None:
        """Hash all `size` bytes of the upload again; known states in other algorithms are kept.

        Raises:
            Unavailable: the pieces do not have `size` bytes in total.
        """
        hashers, at_began, done = Hashers([algorithm]), None, 0
        for read in pieces:
            piece = memoryview(read)
            split = max(self.began - done, 0)  # the current request's bytes begin here in the piece
            hashers.update(piece[:split])
            if at_began is None and split < len(piece):
                at_began = hashers.copy()
            hashers.update(piece[split:])
            done += len(piece)
        if done != size:
            raise Unavailable(f"the storage returned {done} bytes of an upload that has {size}")
        is_current = self.current is not None and self.hashed == size
        self.at_began = _join(at_began or hashers.copy(), self.at_began)
        self.current, self.hashed = _join(hashers, self.current if is_current else None), size

    def save(self, end: int) -> tuple[int, str] | None:
        """Cache the state of an upload of `end` bytes.

        Returns size and digest to save in the session's row, if the request was too long to read it again.
        """
        if self.current is None or self.hashed != end:
            return None
        _cache.put(self.upload_id, (end, self.current))
        if end - self.began < CHEAP_TO_REREAD:
            return None
        return end, str(self.current.digest(self.session.algorithm))

    def save_at_began(self) -> None:
        """Cache the state before the current request, whose bytes were discarded."""
        if self.began and self.at_began is not None:
            _cache.put(self.upload_id, (self.began, self.at_began))


def _join(hashers: Hashers, others: Hashers | None) -> Hashers:
    return hashers if others is None else hashers.joined(others)
