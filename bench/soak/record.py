"""What the registry has acknowledged, and its failures; shared by all clients."""

import random
import threading
import time
from collections import Counter
from typing import Final, TypeAlias

Manifest: TypeAlias = tuple[str, str, str]
"""Repository, tag, digest. The tag is the digest itself where a manifest must be readable by it alone."""

_SHOWN: Final = 100
_TRIES: Final = 20


class Record:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[str] = []
        self.counts: Final[Counter[str]] = Counter()
        self.events = 0  # in total
        self.blobs: Final[set[tuple[str, str]]] = set()  # repository, digest
        self.manifests: Final[dict[tuple[str, str], str]] = {}  # repository, tag: digest
        self._pushed: list[Manifest] = []
        self._deletable: set[tuple[str, str]] = set()  # repository, tag
        self.deleted: Final[set[tuple[str, str]]] = set()  # repository, digest of a manifest

    def failed(self, what: str) -> None:
        """Record a failure."""
        with self._lock:
            self._failures.append(f"{time.strftime('%H:%M:%S')} {what}")

    def count(self, what: str) -> None:
        """Increment a counter."""
        with self._lock:
            self.counts[what] += 1

    def event(self, kind: str) -> None:
        """Count something that a client requested and the registry acknowledged."""
        with self._lock:
            self.events += 1
            self.counts[f"events: {kind}"] += 1

    def acknowledged_blob(self, repository: str, digest: str) -> None:
        """From now on it must be readable."""
        with self._lock:
            self.blobs.add((repository, digest))
            self.counts["blobs acknowledged"] += 1

    def acknowledged_manifest(self, repository: str, tag: str, digest: str, *, deletable: bool) -> None:
        """From now on it must be readable by digest and by this tag."""
        with self._lock:
            if deletable:
                self._deletable.add((repository, tag))
            self.manifests[repository, tag] = digest
            self._pushed.append((repository, tag, digest))
            self.counts["manifests acknowledged"] += 1

    def acknowledged_again(self, repository: str, references: dict[str, str]) -> None:
        """A restore has brought these tags and digests back; from now on they must be readable."""
        with self._lock:
            for reference, digest in references.items():
                self.manifests[repository, reference] = digest
                self._pushed.append((repository, reference, digest))

    def forget_manifest(self, repository: str, tag: str) -> str | None:
        """Do not expect the manifest any more, because it is about to be deleted."""
        with self._lock:
            self._deletable.discard((repository, tag))
            return self.manifests.pop((repository, tag), None)

    def forget_repository(self, repository: str) -> dict[str, str]:
        """Do not expect any of its manifests any more, because it is about to be deleted.

        Returns the digests by their tags, and by themselves.
        """
        with self._lock:
            keys = [key for key in self.manifests if key[0] == repository]
            self._deletable.difference_update(keys)
            return {key[1]: self.manifests.pop(key) for key in keys}

    def acknowledged_deletion(self, repository: str, digest: str) -> None:
        """From now on it must be unknown."""
        with self._lock:
            self.deleted.add((repository, digest))
            self.counts["deletions acknowledged"] += 1

    def random_manifest(self, chance: random.Random, *, deletable: bool = False) -> Manifest | None:
        """A manifest that must exist; with `deletable`, one that no pending request can create again."""
        with self._lock:
            for _ in range(_TRIES if self._pushed else 0):
                repository, tag, digest = found = chance.choice(self._pushed)
                there = self.manifests.get((repository, tag)) == digest
                if there and (not deletable or (repository, tag) in self._deletable):
                    return found
        return None

    def add(self, other: "Record") -> None:
        """Add the failures and counters of another record."""
        with self._lock:
            self._failures += other.failures
            self.counts.update(other.counts)
            self.events += other.events

    @property
    def failures(self) -> list[str]:
        """The recorded failures."""
        with self._lock:
            return list(self._failures)

    def report(self) -> None:
        """Print counters, the events by their kinds among them, and failures."""
        print("\n".join(f"  {number:8} {what}" for what, number in sorted(self.counts.items())))
        print("\n".join(["", f"{len(self.failures)} failures", *self.failures[:_SHOWN]]), flush=True)


class PromiseRecord(Record):
    """For runs with a collector, which removes blobs without a manifest: they are not expected at the end."""

    def acknowledged_blob(self, repository: str, digest: str) -> None:  # noqa: ARG002 - not recorded
        """Count it; a manifest that lists it must be accepted as long as the promise holds."""
        self.count("blobs acknowledged")
