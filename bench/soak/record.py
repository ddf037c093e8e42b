"""What the registry has promised, and what it has done wrong: shared by all clients."""

import random
import threading
import time
from collections import Counter
from typing import Final, TypeAlias

Manifest: TypeAlias = tuple[str, str, str]
"""Repository, tag, digest."""

_SHOWN: Final = 100
_TRIES: Final = 20


class Record:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[str] = []
        self.counts: Final[Counter[str]] = Counter()
        self.blobs: Final[set[tuple[str, str]]] = set()  # repository, digest
        self.manifests: Final[dict[tuple[str, str], str]] = {}  # repository, tag: digest
        self._pushed: list[Manifest] = []
        self._deletable: set[tuple[str, str]] = set()  # repository, tag
        self.deleted: Final[set[tuple[str, str]]] = set()  # repository, digest of a manifest

    def failed(self, what: str) -> None:
        """Something happened that must not."""
        with self._lock:
            self._failures.append(f"{time.strftime('%H:%M:%S')} {what}")

    def count(self, what: str) -> None:
        """One more of these."""
        with self._lock:
            self.counts[what] += 1

    def acknowledged_blob(self, repository: str, digest: str) -> None:
        """From now on it must be readable."""
        with self._lock:
            self.blobs.add((repository, digest))
            self.counts["blobs acknowledged"] += 1

    def acknowledged_manifest(self, repository: str, tag: str, digest: str, *, deletable: bool) -> None:
        """From now on it must be readable, by this tag too."""
        with self._lock:
            if deletable:
                self._deletable.add((repository, tag))
            self.manifests[repository, tag] = digest
            self._pushed.append((repository, tag, digest))
            self.counts["manifests acknowledged"] += 1

    def take_manifest(self, repository: str, tag: str) -> str | None:
        """Promise no more of it: it is about to be deleted."""
        with self._lock:
            self._deletable.discard((repository, tag))
            return self.manifests.pop((repository, tag), None)

    def acknowledged_deletion(self, repository: str, digest: str) -> None:
        """From now on it must be gone."""
        with self._lock:
            self.deleted.add((repository, digest))
            self.counts["deletions acknowledged"] += 1

    def some_manifest(self, chance: random.Random, *, deletable: bool = False) -> Manifest | None:
        """One that must be there; if asked, one whose deletion nothing under way can undo."""
        with self._lock:
            for _ in range(_TRIES if self._pushed else 0):
                repository, tag, digest = found = chance.choice(self._pushed)
                there = self.manifests.get((repository, tag)) == digest
                if there and (not deletable or (repository, tag) in self._deletable):
                    return found
        return None

    @property
    def failures(self) -> list[str]:
        """What has happened that must not."""
        with self._lock:
            return list(self._failures)

    def report(self) -> None:
        """Print all of it."""
        print("\n".join(f"  {number:8} {what}" for what, number in sorted(self.counts.items())))
        print("\n".join(["", f"{len(self.failures)} failures", *self.failures[:_SHOWN]]), flush=True)
