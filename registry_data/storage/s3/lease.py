"""One writer at a time, on any number of nodes.

The writer is named in the upload's state, which is only ever replaced on condition that it is still the
one that was read (If-Match). A lease that is not renewed runs out, by the clock of the S3 server alone; that
of a process which is known to be dead is free at once. A writer that was slow, not dead, finds at its next
write of the state that it has lost: what it wrote since counts for nothing.
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

# Long enough to outlive some renewals that come late; a client whose last request failed waits as long.
LEASE: Final = timedelta(seconds=10)
_RENEWED_EVERY: Final = 2.0  # seconds
_AT_ONCE: Final = 8  # leases that a process renews side by side


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An upload's state as it was read."""

    state: State
    etag: str
    age: timedelta

    @classmethod
    def read(cls, bucket: Bucket, name: str) -> "Snapshot":
        """Read it now.

        Raises:
            NotStored: there is no such upload.
        """
        found = bucket.get(name)
        return cls(State.load(found.body), found.etag, found.age)

    @property
    def is_held(self) -> bool:
        """Whether somebody has the lease."""
        return bool(self.state.writer) and self.age < LEASE and not is_known_dead(self.state.writer)


class Lease:
    """The right to change an upload's state. `state` is what will be saved at the next occasion."""

    def __init__(self, bucket: Bucket, name: str, snapshot: Snapshot) -> None:
        """Take it, from an upload that was seen to be free.

        Raises:
            Busy: somebody else was faster.
        """
        self._bucket, self._name, self._etag = bucket, name, snapshot.etag
        self._lock = threading.RLock()
        self._stamps: list[str] = []  # of writes whose outcome is not known
        self._saved_at = 0.0
        self.is_over = False
        try:
            self.save(replace(snapshot.state, writer=this_process()))
        except Changed as error:
            raise Busy("another writer was faster") from error

    def note(self, state: State) -> None:
        """Have a state saved with the next renewal."""
        with self._lock:
            self.state = state

    def save(self, state: State) -> None:
        """Save a state now.

        Raises:
            Changed: the lease had run out and somebody else has it.
        """
        with self._lock:
            if self.is_over:
                raise Changed("the upload is no longer this writer's")
            try:
                self._put(state)
            except (Changed, NotStored):
                # A try whose answer got lost may have been the one that changed it.
                found = self._find()
                if found is None or found.state.stamp not in self._stamps:
                    self.is_over = True
                    raise Changed("another writer has taken over the upload") from None
                self._etag = found.etag
                self._put(state)

    def release(self, state: State) -> None:
        """Save a state and give the lease back."""
        with self._lock:
            try:
                self.save(replace(state, writer=""))
            finally:
                self.is_over = True

    def renew(self) -> None:
        """Save `state` if that was not done lately. A failure shows at the next save."""
        if not self._lock.acquire(blocking=False):
            return  # its writer is saving it
        try:
            if not self.is_over and time.monotonic() - self._saved_at > _RENEWED_EVERY / 2:
                with suppress(StorageError):
                    self.save(self.state)
        finally:
            self._lock.release()

    def _put(self, state: State) -> None:
        stamped = replace(state, stamp=uuid4().hex)
        self._stamps.append(stamped.stamp)
        self._etag = self._bucket.put(self._name, stamped.dump(), if_match=self._etag)
        self._stamps.clear()
        self._saved_at = time.monotonic()
        self.state = stamped

    def _find(self) -> Snapshot | None:
        try:
            return Snapshot.read(self._bucket, self._name)
        except NotStored:
            return None


class Renewal:
    """Renews all leases of a process, from threads that are there while there are any.

    One that S3 does not answer keeps none of the others waiting.
    """

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._is_running = False

    def add(self, lease: Lease) -> None:
        """Renew a lease from now on, until it is over.

        Raises:
            Unavailable: the system has no thread for that.
        """
        with self._lock:
            self._leases.add(lease)
            if self._is_running:
                return
            thread = threading.Thread(target=self._run, name="s3-leases", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise Unavailable(f"leases of uploads cannot be renewed: {error}") from error
            self._is_running = True

    def _run(self) -> None:
        begun: dict[Lease, Future[None]] = {}
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3-lease") as pool:
            while leases := self._after_a_while():
                again = [lease for lease in leases if lease not in begun or begun[lease].done()]
                begun = {lease: begun[lease] for lease in leases if lease not in again}
                with suppress(RuntimeError):  # no thread can be had now: those that are there go on
                    begun |= {lease: pool.submit(lease.renew) for lease in again}

    def _after_a_while(self) -> Collection[Lease]:
        """The leases to renew; none, and this thread is forgotten."""
        time.sleep(_RENEWED_EVERY)
        with self._lock:
            self._leases = {lease for lease in self._leases if not lease.is_over}
            self._is_running = bool(self._leases)
            return list(self._leases)
