"""Blobs that are read at their clients' pace.

An answer that is open takes a connection, and a server may serve only so many at once: MinIO reckons them by
its memory. Clients that take nothing would keep everybody else from it, so where many answers are open, those
that nobody reads are closed, and asked for again from where they were.
"""

import threading
import time
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from registry_data.storage.s3.bucket import Bucket, Reader

# Of one process. A few slow clients harm nobody, and asking again costs a request.
_MANY: Final = 64
_IDLE: Final = 1.0  # seconds


class ResumableReader:
    """An iterator over a part of an object, which holds a connection only while it is read, or few are."""

    def __init__(self, bucket: Bucket, name: str, start: int, stop: int | None) -> None:
        """Ask for it now.

        Raises:
            NotStored: it is not there.
        """
        self._bucket, self._name = bucket, name
        self._lock = threading.Lock()
        self._answer: Reader | None = bucket.read(name, start, stop)
        self._etag = self._answer.etag
        self._at, self._stop = start, start + self._answer.length
        self._read_at = time.monotonic()

    def __iter__(self) -> "ResumableReader":
        return self

    def __next__(self) -> bytes:
        with self._lock:
            if self._answer is None:
                if self._at == self._stop:
                    raise StopIteration
                self._answer = self._bucket.read(self._name, self._at, self._stop, etag=self._etag)
            try:
                piece = next(self._answer)
            except StopIteration:
                self._answer = None
                raise
            self._at += len(piece)
            self._read_at = time.monotonic()
            return piece

    @property
    def is_open(self) -> bool:
        """Whether it holds a connection."""
        return self._answer is not None

    def rest(self) -> None:
        """Let go of the connection, unless somebody reads or has just done so."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._answer is not None and time.monotonic() - self._read_at >= _IDLE:
                self._answer.close()
                self._answer = None
        finally:
            self._lock.release()


class Readers:
    """All readers of a process; a thread looks after them while there are any."""

    def __init__(self) -> None:
        self._readers: WeakSet[ResumableReader] = WeakSet()
        self._lock = threading.Lock()
        self._is_running = False

    def add(self, reader: ResumableReader) -> None:
        """Look after a reader until it is forgotten."""
        with self._lock:
            self._readers.add(reader)
            if self._is_running:
                return
            # No thread can be had now: the next reader tries again.
            with suppress(RuntimeError):
                threading.Thread(target=self._run, name="s3-readers", daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        while self._are_there_after_a_while():
            self._let_rest()

    def _are_there_after_a_while(self) -> bool:
        """Whether there are readers; if not, this thread is forgotten."""
        time.sleep(_IDLE)
        with self._lock:
            self._is_running = bool(self._readers)
            return self._is_running

    def _let_rest(self) -> None:
        with self._lock:
            readers = [reader for reader in self._readers if reader.is_open]
        if len(readers) > _MANY:
            for reader in readers:
                reader.rest()
