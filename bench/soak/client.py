"""A client that pushes, pulls and deletes as a stubborn user would, and notes every promise."""

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from bench.soak.connection import LOST, Connection, Reply
from bench.soak.record import Record

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_PATIENCE: Final = 90.0  # seconds of trying one thing again: longer than any restart takes
_BUSY: Final = frozenset({503})
_NOT_YET: Final = _BUSY | {416}  # an earlier attempt of the same is still being worked on
_SIZES: Final[dict[int, float]] = {100: 6, 1_000: 6, 20_000: 4, 200_000: 2, 2_000_000: 1, 9_000_000: 0.1}
"""Of layers, in bytes, and how often they come."""
_FORGETFUL: Final = 0.03  # share of uploads beside which another one is begun and left
_DELETIONS: Final = 0.3  # share of the turns that could delete
COMMON_LAYERS: Final = [f"common layer {number}".encode() * 5000 for number in range(20)]
"""Pushed by many clients at once."""


class GivenUp(Exception):
    """It is time to stop, or something failed and is noted."""


class Client:
    """Runs in a thread of its own."""

    def __init__(
        self,
        number: int,
        connection: Connection,
        chance: random.Random,
        repositories: Sequence[str],
        record: Record,
        over: threading.Event,
    ) -> None:
        self._number = number
        self._connection = connection
        self._chance = chance
        self._repositories = repositories
        self._record = record
        self._over = over
        self._pushed = 0

    def run(self) -> None:
        """Work until it is over."""
        works: list[Callable[[], None]] = [self._push, self._push, self._pull, self._pull, self._delete]
        while not self._over.is_set():
            try:
                self._chance.choice(works)()
            except GivenUp:
                continue
            except Exception as error:  # noqa: BLE001 - a client that dies would hide what it met
                self._record.failed(f"the client itself: {error!r}")
        self._connection.close()

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
        config, *layers = (
            {"mediaType": _LAYER, "digest": digest_of(content), "size": len(content)} for content in contents
        )
        document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        body, path = json.dumps(document).encode(), f"/v2/{repository}/manifests/{tag}"
        _, tries = self._until_answered(
            lambda: self._connection.call("PUT", path, body, content_type=_MANIFEST), {201}
        )
        # An attempt that got no answer may still be done after a deletion, and undo it: nobody deletes those.
        self._record.acknowledged_manifest(repository, tag, digest_of(body), deletable=tries == 1)

    def _upload(self, repository: str, content: bytes) -> None:
        """One blob, in one of the ways that clients have, until it is acknowledged."""
        base, digest = f"/v2/{repository}/blobs", digest_of(content)
        if self._chance.random() < _FORGETFUL:
            self._begin_and_forget(base, content)
        way = self._chance.random()
        if way < 0.3 and self._is_there(f"{base}/{digest}"):
            pass  # What a HEAD has answered is a promise too.
        elif way < 0.6:
            whole = f"{base}/uploads/?digest={digest}"
            self._until_answered(lambda: self._connection.call("POST", whole, content), {201})
        else:
            self._send(self._begin(base), content, digest)
        self._record.acknowledged_blob(repository, digest)

    def _is_there(self, blob: str) -> bool:
        reply, _ = self._until_answered(lambda: self._connection.call("HEAD", blob), {200, 404})
        return reply.status == 200

    def _begin(self, base: str) -> str:
        reply, _ = self._until_answered(lambda: self._connection.call("POST", f"{base}/uploads/"), {202})
        return reply.headers["location"]

    def _begin_and_forget(self, base: str, content: bytes) -> None:
        """What a client leaves that goes away in the middle and never comes back."""
        location = self._begin(base)
        self._answered(lambda: self._connection.call("PATCH", location, content[: len(content) // 2]))

    def _send(self, location: str, content: bytes, digest: str) -> None:
        """Send the bytes in chunks, going on from wherever the registry says it is."""
        chunk = max(2, len(content) // self._chance.choice([1, 1, 3]))
        offset, deadline = 0, time.monotonic() + _PATIENCE
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
        self._until_answered(lambda: self._connection.call("PUT", close), {201}, again=_NOT_YET)

    def _send_chunk(self, location: str, piece: bytes, offset: int) -> Reply | None:
        span = f"{offset}-{offset + len(piece) - 1}"
        return self._answered(lambda: self._connection.call("PATCH", location, piece, content_range=span))

    def _offset(self, location: str) -> int:
        """`0-0` is what an upload without a byte has too; none is ever cut off after its first one here."""
        reply, _ = self._until_answered(lambda: self._connection.call("GET", location), {204})
        last = int(reply.headers["range"].removeprefix("0-"))
        return last + 1 if last else 0

    def _pull(self) -> None:
        found = self._record.some_manifest(self._chance)
        if found is None:
            return
        repository, tag, digest = found
        path = f"/v2/{repository}/manifests/{self._chance.choice([tag, digest])}"
        reply, _ = self._until_answered(lambda: self._connection.call("GET", path), {200, 404})
        if reply.status == 404:
            # Unless somebody deletes it just now.
            if self._record.manifests.get((repository, tag)) == digest:
                self._record.failed(f"GET {path}: an acknowledged manifest is not there")
            return
        self._check_content(path, reply.body, digest)
        layer = self._chance.choice(json.loads(reply.body)["layers"])["digest"]
        blob = f"/v2/{repository}/blobs/{layer}"
        reply, _ = self._until_answered(lambda: self._connection.call("GET", blob), {200})
        self._check_content(blob, reply.body, layer)

    def _check_content(self, path: str, content: bytes, digest: str) -> None:
        self._record.count("pulls")
        if digest_of(content) != digest:
            self._record.failed(f"GET {path}: other bytes came than were pushed")

    def _delete(self) -> None:
        found = self._record.some_manifest(self._chance, deletable=True)
        if found is None or self._chance.random() > _DELETIONS:
            return
        repository, tag, digest = found
        if self._record.take_manifest(repository, tag) is None:
            return
        path = f"/v2/{repository}/manifests/{digest}"
        # A repeat of one that was done, but not answered, finds nothing.
        self._until_answered(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.acknowledged_deletion(repository, digest)

    def _until_answered(
        self, call: Callable[[], Reply], expected: AbstractSet[int], again: AbstractSet[int] = _BUSY
    ) -> tuple[Reply, int]:
        """Try until there is an answer that is not `come again`; note it if it is none of the expected.

        Returns the answer and how many tries it took.
        """
        deadline, tries = time.monotonic() + _PATIENCE, 0
        while True:
            reply, tries = self._answered(call), tries + 1
            if reply is not None and reply.status not in again:
                self._expect(reply, expected)
                return reply, tries
            self._check_time(deadline, f"a request ({reply.body[:300]!r})" if reply else "a request")
            time.sleep(0.1 + self._chance.random() * 0.3)

    def _answered(self, call: Callable[[], Reply]) -> Reply | None:
        try:
            reply = call()
        except LOST:
            self._record.count("requests without an answer")
            return None
        self._record.count(f"answers {reply.status}")
        return reply

    def _expect(self, reply: Reply, expected: AbstractSet[int]) -> None:
        if reply.status not in expected:
            self._record.failed(
                f"{reply.call}: {reply.status} instead of {set(expected)}: {reply.body[:300]!r}"
            )
            raise GivenUp

    def _check_time(self, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            self._record.failed(f"{what}: no answer in {_PATIENCE:g} s")
            raise GivenUp
        if self._over.is_set():
            raise GivenUp


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
