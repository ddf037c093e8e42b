"""Verifies that everything acknowledged can be read, and that everything readable is complete."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final, TypeAlias

from bench.soak.client import digest_of
from bench.soak.connection import LOST, Connection, Response
from bench.soak.record import Record

Connect: TypeAlias = Callable[[], Connection]

_READERS: Final = 8
_TIMEOUT: Final = 60.0  # seconds
_PAGE: Final = 1000


class Verifier:
    """Reads every blob and manifest once, in several threads."""

    def __init__(self, connect: Connect, record: Record) -> None:
        self._connect = connect
        self._record = record
        self._here = threading.local()
        self._open = ExitStack()
        self._verified: set[tuple[str, str]] = set()

    def run(self, repositories: Iterable[str]) -> None:
        """Record every missing or incomplete blob and manifest."""
        record = self._record
        with self._open, ThreadPoolExecutor(_READERS) as readers:
            checks = [
                readers.map(lambda blob: self._blob(*blob), sorted(record.blobs)),
                readers.map(lambda deleted: self._deleted(*deleted), sorted(record.deleted)),
            ]
            for check in checks:
                list(check)
            seen = {
                manifest: digest
                for found in readers.map(self._visible, repositories)
                for manifest, digest in found.items()
            }
            by_digest = [(repository, tag) for repository, tag in record.manifests if ":" in tag]
            seen |= zip(by_digest, readers.map(lambda key: self._manifest(*key), by_digest), strict=True)
        for key, digest in record.manifests.items():
            record.count("manifests verified")
            if seen.get(key) != digest:
                record.failed(f"{key} is {seen.get(key)} instead of {digest}")
        for _ in seen.keys() - record.manifests.keys():
            record.count("unacknowledged manifests that are complete")

    def _blob(self, repository: str, digest: str) -> bool:
        """Whether its content is complete; each blob is read once."""
        if (repository, digest) not in self._verified:
            reply = self._get(f"/v2/{repository}/blobs/{digest}")
            if reply.status != 200 or digest_of(reply.body) != digest:
                self._record.failed(
                    f"{reply.call}: {reply.status}, {len(reply.body)} bytes, not the acknowledged content"
                )
                return False
            self._verified.add((repository, digest))
            self._record.count("blobs verified")
        return True

    def _deleted(self, repository: str, digest: str) -> None:
        reply = self._get(f"/v2/{repository}/manifests/{digest}")
        self._record.count("deletions verified")
        if reply.status != 404:
            self._record.failed(f"{reply.call}: {reply.status} for a deleted manifest")

    def _visible(self, repository: str) -> dict[tuple[str, str], str]:
        """Read every listed tag with its blobs; return the digest of each."""
        found, last = {}, ""
        while names := self._page(repository, last):
            for tag in names:
                found[repository, tag] = self._manifest(repository, tag)
            last = names[-1]
        return found

    def _manifest(self, repository: str, reference: str) -> str:
        """Read a manifest by a tag or digest, with its blobs; return its digest."""
        reply = self._get(f"/v2/{repository}/manifests/{reference}")
        digest = digest_of(reply.body)
        if reply.status != 200 or reply.headers.get("docker-content-digest") != digest:
            self._record.failed(f"{reply.call}: {reply.status} {reply.body[:200]!r}")
            return digest
        document = json.loads(reply.body)
        for part in (document["config"], *document["layers"]):
            self._blob(repository, part["digest"])
        return digest

    def _page(self, repository: str, last: str) -> list[str]:
        reply = self._get(f"/v2/{repository}/tags/list?n={_PAGE}&last={last}")
        if reply.status == 404:  # no push to it was acknowledged
            return []
        names: list[str] = json.loads(reply.body)["tags"]
        return names

    def _get(self, path: str) -> Response:
        connection = self._connection()
        deadline = time.monotonic() + _TIMEOUT
        while True:
            try:
                return connection.call("GET", path)
            except LOST:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _connection(self) -> Connection:
        if not hasattr(self._here, "connection"):
            self._here.connection = self._open.enter_context(closing(self._connect()))
        connection: Connection = self._here.connection
        return connection


def steady(host: str, secret: str) -> Connection:
    """A connection that this client never cuts."""
    return Connection(host, secret, random.Random(0), cuts=0)
