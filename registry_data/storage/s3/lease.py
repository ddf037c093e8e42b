"""Leases: one writer of an upload at a time, on any number of nodes (ADR 21, ADR 47).

The state of an upload names the process that has the lease. Every write of the state is conditional on the
ETag that was read (If-Match, an optimistic lock). A lease expires unless it is renewed, by the clock of the
S3 server only; the lease of a process known to be dead can be taken over at once. A writer that was slow and
lost its lease notices at its next write of the state, and what it wrote since then is not part of the upload.
"""

import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from uuid import uuid4

from registry_data.storage.base import Busy, NotStored, StorageError, Unavailable
from registry_data.storage.s3.bucket import Bucket, Changed
from registry_data.storage.s3.process_identity import is_known_dead, this_process
from registry_data.storage.s3.state import State

# Each open upload costs one PUT in each renewal interval. A lease survives two missed renewals. If a writer
# dies on another machine, its client waits until the lease has expired.
LEASE: Final = timedelta(seconds=15)
_RENEWAL_INTERVAL: Final = 5.0  # seconds
_THREADS: Final = 8  # renewals of a process at the same time


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an upload as it was read."""

    state: State
    etag: str
    age: timedelta

    @classmethod
    def read(cls, bucket: Bucket, name: str) -> "Snapshot":
        """Read the state object.

        Raises:
            NotStored: there is no such upload.
        """
        found = bucket.get(name)
        return cls(State.load(found.body), found.etag, found.age)

    @property
    def is_leased(self) -> bool:
        """Whether a process, not known to be dead, has the lease."""
        return bool(self.state.writer) and self.age < LEASE and not is_known_dead(self.state.writer)


class Lease:
    """The right to change an upload's state. `state` is saved with the next renewal at the latest."""

    def __init__(self, bucket: Bucket, name: str, snapshot: Snapshot) -> None:
        """Acquire the lease of an upload that was free when `snapshot` was read.

        Raises:
            Busy: another writer acquired it first.
        """
        self._bucket, self._name, self._etag = bucket, name, snapshot.etag
        self._lock = threading.RLock()
        self._unconfirmed: list[str] = []  # ids of writes whose response was lost
        self._saved_at = 0.0
        self.has_ended = False
        try:
            self.save(replace(snapshot.state, writer=this_process()))
        except Changed as error:
            raise Busy("another writer has just opened the upload") from error

    def note(self, state: State) -> None:
        """Save a state with the next renewal."""
        with self._lock:
            self.state = state

    def save(self, state: State) -> None:
        """Save a state now.

        Raises:
            Changed: the lease expired and another writer has it.
        """
        with self._lock:
            if self.has_ended:
                raise Changed("this writer has lost the lease of the upload")
            try:
                self._put(state)
            except (Changed, NotStored):
                # A retried request fails if its first try succeeded and only the response was lost.
                found = self._read()
                if found is None or found.state.write_id not in self._unconfirmed:
                    self.has_ended = True
                    raise Changed("another writer has taken the upload over") from None
                self._etag = found.etag
                self._put(state)

    def release(self, state: State) -> None:
        """Save a state and release the lease."""
        with self._lock:
            try:
                self.save(replace(state, writer=""))
            finally:
                self.has_ended = True

    def renew(self) -> None:
        """Save `state`, unless it was saved recently. A failure shows at the next `save`."""
        if not self._lock.acquire(blocking=False):
            return  # the writer is saving it now
        try:
            if not self.has_ended and time.monotonic() - self._saved_at > _RENEWAL_INTERVAL / 2:
                with suppress(StorageError):
                    self.save(self.state)
        finally:
            self._lock.release()

    def _put(self, state: State) -> None:
        identified = replace(state, write_id=uuid4().hex)
        self._unconfirmed.append(identified.write_id)
        self._etag = self._bucket.put(self._name, identified.dump(), if_match=self._etag)
        self._unconfirmed.clear()
        self._saved_at = time.monotonic()
        self.state = identified

    def _read(self) -> Snapshot | None:
        try:
            return Snapshot.read(self._bucket, self._name)
        except NotStored:
            return None


class LeaseRenewal:
    """Renews all leases of a process, in threads that run as long as there are leases.

    A renewal that S3 does not answer does not delay the others.
    """

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._is_running = False

    def add(self, lease: Lease) -> None:
        """Renew a lease until it ends.

        Raises:
            Unavailable: no thread can be started.
        """
        with self._lock:
            self._leases.add(lease)
            if self._is_running:
                return
            thread = threading.Thread(target=self._run, name="s3-leases", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise Unavailable(f"no thread can be started to renew an upload's lease: {error}") from error
            self._is_running = True

    def _run(self) -> None:
        running: dict[Lease, Future[None]] = {}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3-lease") as pool:
            while leases := self._wait():
                due = [lease for lease in leases if lease not in running or running[lease].done()]
                running = {lease: running[lease] for lease in leases if lease not in due}
                with suppress(RuntimeError):  # no more threads can be started: existing ones continue
                    running |= {lease: pool.submit(lease.renew) for lease in due}

    def _wait(self) -> Collection[Lease]:
        """Sleep; the leases to renew. If there are none, this thread ends."""
        time.sleep(_RENEWAL_INTERVAL)
        with self._lock:
            self._leases = {lease for lease in self._leases if not lease.has_ended}
            self._is_running = bool(self._leases)
            return list(self._leases)
