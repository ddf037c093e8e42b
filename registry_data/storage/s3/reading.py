"""Readers of blobs that hold a connection to S3 only while they are read (ADR 36).

A server may serve a limited number of responses at once (MinIO computes it from its memory). Clients that do
not read would block all others, so if many responses are open, those that are not being read are closed, and
requested again from where they were.
"""

import threading
import time
from contextlib import suppress
from typing import Final
from weakref import WeakSet

from registry_data.storage.base import PIECE
from registry_data.storage.s3.bucket import Bucket, Reader

# For each process. A few slow clients are no problem, and requesting again costs a request.
MAX_OPEN: Final = 64
_IDLE: Final = 1.0  # seconds


class ResumableReader:
    """Iterator over a part of an object."""

    def __init__(self, bucket: Bucket, name: str, start: int, stop: int | None) -> None:
        """Send the request.

        Raises:
            NotStored: the object does not exist.
        """
        self._bucket, self._name = bucket, name
        self._lock = threading.Lock()
        self._response: Reader | None = bucket.read(name, start, stop)
        self._etag = self._response.etag
        self._offset, self._stop = start, start + self._response.length
        self._read_at = time.monotonic()
        self.piece_size = PIECE

    def __iter__(self) -> "ResumableReader":
        return self

    def __next__(self) -> bytes:
        with self._lock:
            if self._response is None:
                if self._offset == self._stop:
                    raise StopIteration
                self._response = self._bucket.read(self._name, self._offset, self._stop, etag=self._etag)
            self._response.piece_size = self.piece_size
            try:
                piece = next(self._response)
            except StopIteration:
                self._response = None
                raise
            self._offset += len(piece)
            self._read_at = time.monotonic()
            return piece

    @property
    def is_open(self) -> bool:
        """Whether it holds a connection."""
        return self._response is not None

    def suspend_if_idle(self) -> None:
        """Close the response, unless it is being read or was read within the idle time."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._response is not None and time.monotonic() - self._read_at >= _IDLE:
                self._response.close()
                self._response = None
        finally:
            self._lock.release()


class ReaderPool:
    """All readers of a process. A thread suspends idle ones; it runs as long as there are readers."""

    def __init__(self) -> None:
        self._readers: WeakSet[ResumableReader] = WeakSet()
        self._lock = threading.Lock()
        self._is_running = False

    def add(self, reader: ResumableReader) -> None:
        """Watch a reader until it is garbage-collected."""
        with self._lock:
            self._readers.add(reader)
            if self._is_running:
                return
            # If no thread can be started now, the next reader tries again.
            with suppress(RuntimeError):
                threading.Thread(target=self._run, name="s3-readers", daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        while self._wait():
            self._suspend_idle()

    def _wait(self) -> bool:
        """Sleep; whether there are readers. If not, this thread ends."""
        time.sleep(_IDLE)
        with self._lock:
            self._is_running = bool(self._readers)
            return self._is_running

    def _suspend_idle(self) -> None:
        with self._lock:
            readers = [reader for reader in self._readers if reader.is_open]
        if len(readers) > MAX_OPEN:
            for reader in readers:
                reader.suspend_if_idle()
