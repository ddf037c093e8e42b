"""A client that pushes, pulls and deletes, retries every request, and records what was acknowledged."""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from bench.soak.connection import LOST, Connection, Response
from bench.soak.record import Record

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_TIMEOUT: Final = 90.0  # seconds of retrying one operation: longer than any restart
_BUSY: Final = frozenset({503})
_NOT_YET: Final = _BUSY | {416}  # an earlier attempt of the same request is still being processed
_SIZES: Final[dict[int, float]] = {100: 6, 1_000: 6, 20_000: 4, 200_000: 2, 2_000_000: 1, 9_000_000: 0.1}
"""Sizes of layers in bytes, with their relative frequencies."""
_ABANDONED: Final = 0.03  # share of uploads before which another one is started and abandoned
_DELETIONS: Final = 0.3  # share of the possible deletions that are done
COMMON_LAYERS: Final = [f"common layer {number}".encode() * 5000 for number in range(20)]
"""Pushed by many clients concurrently."""


class Aborted(Exception):
    """The run is over, or an operation has failed and is recorded."""


class Client:
    """Runs in its own thread."""

    def __init__(
        self,
        number: int,
        connection: Connection,
        chance: random.Random,
        repositories: Sequence[str],
        record: Record,
        stop: threading.Event,
    ) -> None:
        self._number = number
        self._connection = connection
        self._chance = chance
        self._repositories = repositories
        self._record = record
        self._stop = stop
        self._pushed = 0

    def run(self) -> None:
        """Repeat random operations until the run is over."""
        works = self._works()
        while not self._stop.is_set():
            try:
                self._chance.choices([*works], [*works.values()])[0]()
            except Aborted:
                continue
            except Exception as error:  # noqa: BLE001 - a client that dies would hide what it met
                self._record.failed(f"the client itself: {error!r}")
        self._connection.close()

    def _works(self) -> dict[Callable[[], None], float]:
        """What it does, with relative frequencies."""
        return {self._push: 2, self._pull: 2, self._delete: 1}

    def _push(self) -> None:
        repository = self._chance.choice(self._repositories)
        size = self._chance.choices(list(_SIZES), list(_SIZES.values()))[0]
        contents = [
            self._chance.randbytes(50),
            self._chance.randbytes(size),
            self._chance.choice(COMMON_LAYERS),
        ]
        for content in contents:
            self._upload(repository, content)
        self._pushed += 1
        self._put_manifest(repository, f"c{self._number}-{self._pushed}", contents)

    def _put_manifest(self, repository: str, tag: str, contents: Sequence[bytes]) -> None:
        body, path = manifest_of(contents), f"/v2/{repository}/manifests/{tag}"
        _, tries = self._retry(lambda: self._connection.call("PUT", path, body, content_type=MANIFEST), {201})
        # An attempt without a response may be processed after a deletion, and undo it: it is never deleted.
        self._record.acknowledged_manifest(repository, tag, digest_of(body), deletable=tries == 1)

    def _upload(self, repository: str, content: bytes) -> None:
        """Upload one blob, in one of the ways that clients use, until it is acknowledged."""
        base, digest = f"/v2/{repository}/blobs", digest_of(content)
        if self._chance.random() < _ABANDONED:
            self._abandon(base, content)
        way = self._chance.random()
        if way < 0.3 and self._exists(f"{base}/{digest}"):
            self._record.event("HEAD")  # The response is an acknowledgement too.
        elif way < 0.6:
            whole = f"{base}/uploads/?digest={digest}"
            self._retry(lambda: self._connection.call("POST", whole, content), {201})
            self._record.event("upload")
        else:
            self._send(self._start_upload(base), content, digest)
            self._record.event("upload")
        self._record.acknowledged_blob(repository, digest)

    def _exists(self, blob: str) -> bool:
        reply, _ = self._retry(lambda: self._connection.call("HEAD", blob), {200, 404})
        return reply.status == 200

    def _start_upload(self, base: str) -> str:
        reply, _ = self._retry(lambda: self._connection.call("POST", f"{base}/uploads/"), {202})
        return reply.headers["location"]

    def _abandon(self, base: str, content: bytes) -> None:
        """Leave an upload open, as a client does that disconnects and never returns."""
        location = self._start_upload(base)
        self._try_once(lambda: self._connection.call("PATCH", location, content[: len(content) // 2]))

    def _send(self, location: str, content: bytes, digest: str) -> None:
        """Send the bytes in chunks, and continue from the offset in the response."""
        chunk = max(2, len(content) // self._chance.choice([1, 1, 3]))
        offset, deadline = 0, time.monotonic() + _TIMEOUT
        while offset < len(content):
            self._check_time(deadline, f"PATCH {location}")
            reply = self._send_chunk(location, content[offset : offset + chunk], offset)
            if reply is None or reply.status in _NOT_YET:
                time.sleep(0.2)
                offset = self._offset(location)
            else:
                self._expect(reply, {202})
                offset = min(offset + chunk, len(content))
        close = f"{location}?digest={digest}"
        self._retry(lambda: self._connection.call("PUT", close), {201}, again=_NOT_YET)

    def _send_chunk(self, location: str, piece: bytes, offset: int) -> Response | None:
        span = f"{offset}-{offset + len(piece) - 1}"
        return self._try_once(lambda: self._connection.call("PATCH", location, piece, content_range=span))

    def _offset(self, location: str) -> int:
        """`0-0` is also the range of an empty upload; no upload here is cut after its first byte."""
        reply, _ = self._retry(lambda: self._connection.call("GET", location), {204})
        last = int(reply.headers["range"].removeprefix("0-"))
        return last + 1 if last else 0

    def _pull(self) -> None:
        found = self._record.random_manifest(self._chance)
        if found is None:
            return
        repository, tag, digest = found
        path = f"/v2/{repository}/manifests/{self._chance.choice([tag, digest])}"
        reply, _ = self._retry(lambda: self._connection.call("GET", path), {200, 404})
        if reply.status == 404:
            # Unless another client deletes it at this moment.
            if self._record.manifests.get((repository, tag)) == digest:
                self._record.failed(f"GET {path}: an acknowledged manifest is missing")
            return
        if digest_of(reply.body) != digest and self._record.manifests.get((repository, tag)) != digest:
            return  # another client has moved the tag meanwhile
        self._check_content(path, reply.body, digest)
        layer = self._chance.choice(json.loads(reply.body)["layers"])["digest"]
        blob = f"/v2/{repository}/blobs/{layer}"
        reply, _ = self._retry(lambda: self._connection.call("GET", blob), {200, 404})
        if reply.status == 200:
            self._check_content(blob, reply.body, layer)
        elif self._record.manifests.get((repository, tag)) == digest:
            self._record.failed(f"GET {blob}: a layer of an acknowledged manifest is missing")

    def _check_content(self, path: str, content: bytes, digest: str) -> None:
        self._record.event("pull")
        if digest_of(content) != digest:
            self._record.failed(f"GET {path}: the content differs from the pushed content")

    def _delete(self) -> None:
        found = self._record.random_manifest(self._chance, deletable=True)
        if found is None or self._chance.random() > _DELETIONS:
            return
        repository, tag, digest = found
        if self._record.forget_manifest(repository, tag) is None:
            return
        path = f"/v2/{repository}/manifests/{digest}"
        # A repetition of a deletion that succeeded without a response gets a 404.
        self._retry(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.acknowledged_deletion(repository, digest)

    def _retry(
        self, call: Callable[[], Response], expected: AbstractSet[int], again: AbstractSet[int] = _BUSY
    ) -> tuple[Response, int]:
        """Retry until the status is not in `again`; record a failure if it is not expected.

        Returns the response and the number of attempts.
        """
        deadline, tries = time.monotonic() + _TIMEOUT, 0
        while True:
            reply, tries = self._try_once(call), tries + 1
            if reply is not None and reply.status not in again:
                self._expect(reply, expected)
                return reply, tries
            self._check_time(deadline, f"a request ({reply.body[:300]!r})" if reply else "a request")
            time.sleep(0.1 + self._chance.random() * 0.3)

    def _try_once(self, call: Callable[[], Response]) -> Response | None:
        try:
            reply = call()
        except LOST:
            self._record.count("requests without a response")
            return None
        self._record.count(f"responses {reply.status}")
        return reply

    def _expect(self, reply: Response, expected: AbstractSet[int]) -> None:
        if reply.status not in expected:
            self._record.failed(
                f"{reply.call}: {reply.status} instead of {set(expected)}: {reply.body[:300]!r}"
            )
            raise Aborted

    def _check_time(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            self._record.failed(f"{what}: no response in {_TIMEOUT:g} s")
            raise Aborted
        if self._stop.is_set():
            raise Aborted


def manifest_of(contents: Sequence[bytes], *, subject: Mapping[str, object] | None = None) -> bytes:
    """An image manifest of a config and layers; with a subject, a signature or the like."""
    config, *layers = map(layer_of, contents)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return json.dumps(document if subject is None else document | {"subject": subject}).encode()


def layer_of(content: bytes) -> dict[str, object]:
    """The descriptor of a layer."""
    return {"mediaType": _LAYER, "digest": digest_of(content), "size": len(content)}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
