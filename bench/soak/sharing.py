"""A client that pushes shared layers and deletes images while the collector removes unreferenced blobs."""

import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Final, TypeAlias, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from bench.soak.client import MANIFEST, Client, digest_of, manifest_of
from bench.soak.connection import Connection
from bench.soak.layers import SharedLayers
from bench.soak.record import Record

Document: TypeAlias = dict[str, list[dict[str, str]]]
"""The lists in a response of the management API."""

_KEPT: Final = 4  # manifests of one client; it deletes the rest, so that layers lose their last reference
_API_TIMEOUT: Final = 60.0  # seconds
_PROMISED: Final = 0.75  # share of a lease for which a promise holds (invariant 2)


class SharingClient(Client):
    """Pushes to repositories that it shares with other clients, and to one that it deletes now and then."""

    def __init__(
        self,
        number: int,
        connection: Connection,
        chance: random.Random,
        repositories: Sequence[str],
        record: Record,
        stop: threading.Event,
        *,
        layers: SharedLayers,
        lease: float,
        api: "ManagementApi",
    ) -> None:
        """`lease` is `REGISTRY_LEASE` in seconds."""
        super().__init__(number, connection, chance, repositories, record, stop)
        self._layers = layers
        self._promise = lease * _PROMISED
        self._api = api
        self.own_repository: Final = f"{repositories[0].partition('/')[0]}/own-{number}"
        self._mine: list[tuple[str, str, str]] = []  # repository, tag, digest

    def _push(self) -> None:
        if len(self._mine) > _KEPT:
            self._delete_mine()
        repository = self._chance.choice([*self._repositories, self.own_repository])
        layers = [self._layers.choose() for _ in range(self._chance.choice([1, 2, 3]))]
        contents, since = [self._chance.randbytes(50), *layers], time.monotonic()
        for content in contents:
            self._upload(repository, content)
        self._pushed += 1
        self._put_promised(repository, f"c{self._number}-{self._pushed}", manifest_of(contents), since)

    def _put_promised(self, repository: str, tag: str, body: bytes, since: float) -> None:
        path = f"/v2/{repository}/manifests/{tag}"
        reply, tries = self._retry(
            lambda: self._connection.call("PUT", path, body, content_type=MANIFEST), {201, 400}
        )
        if reply.status == 400:
            age = time.monotonic() - since
            if age < self._promise:
                self._record.failed(f"PUT {path}: {reply.body[:300]!r} {age:.1f} s after the first promise")
            self._record.count("pushes slower than the promises")
            return
        self._record.acknowledged_manifest(repository, tag, digest_of(body), deletable=tries == 1)
        if tries == 1:
            self._mine.append((repository, tag, digest_of(body)))

    def _upload(self, repository: str, content: bytes) -> None:
        if self._chance.random() < 0.2 and self._is_mounted(repository, digest_of(content)):
            self._record.count("mounts")
            return
        super()._upload(repository, content)

    def _is_mounted(self, repository: str, digest: str) -> bool:
        source = self._chance.choice(self._repositories)
        start = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        reply, _ = self._retry(lambda: self._connection.call("POST", start), {201, 202})
        if reply.status == 202:
            location = reply.headers["location"]
            self._try_once(lambda: self._connection.call("DELETE", location))
        return reply.status == 201

    def _delete(self) -> None:
        if self._chance.random() < 0.1:
            self._delete_own_image()
        elif self._mine:
            self._delete_mine()

    def _delete_mine(self) -> None:
        repository, tag, digest = self._mine.pop(self._chance.randrange(len(self._mine)))
        if self._record.forget_manifest(repository, tag) is None:
            return  # gone with its image
        path = f"/v2/{repository}/manifests/{digest}"
        self._retry(lambda: self._connection.call("DELETE", path), {202, 404})
        self._record.acknowledged_deletion(repository, digest)

    def _delete_own_image(self) -> None:
        """Delete the repository of this client; no other client has a request for it under way."""
        for repository, _, digest in self._mine:
            if repository == self.own_repository:
                self._record.acknowledged_deletion(repository, digest)
        self._mine = [manifest for manifest in self._mine if manifest[0] != self.own_repository]
        # A manifest whose PUT had no response may also be there.
        self._record.forget_repository(self.own_repository)
        if self._api.delete_image(self.own_repository):
            self._record.count("images deleted")


class ManagementApi:
    """The management API with one API key; repeats requests that get no response."""

    def __init__(self, control_url: str, secret: str) -> None:
        self._base = f"{control_url}/registry/v1/regions/fr-par"
        self._secret = secret

    def create_namespace(self, name: str) -> None:
        """Create a namespace, which must not exist."""
        self._call("POST", "/namespaces", {"name": name})

    def delete_image(self, repository: str) -> bool:
        """Delete an image if it exists; return whether it did."""
        namespace, _, name = repository.partition("/")
        (found,) = self._call("GET", f"/namespaces?name={namespace}")["namespaces"]
        listed = self._call("GET", f"/images?namespace_id={found['id']}&name={name}")["images"]
        for image in listed:
            self._call("DELETE", f"/images/{image['id']}")
        return bool(listed)

    def _call(self, method: str, path: str, body: object = None) -> Document:
        deadline = time.monotonic() + _API_TIMEOUT
        while True:
            try:
                return self._once(method, path, body)
            except HTTPError as error:
                if error.code not in (404, 503) or time.monotonic() > deadline:
                    raise
                if error.code == 404:  # an attempt without a response has deleted it
                    return {}
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.3)

    def _once(self, method: str, path: str, body: object) -> Document:
        headers = {"X-Auth-Token": self._secret, "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        with urlopen(Request(self._base + path, data, headers, method=method), timeout=30) as response:
            return cast("Document", json.loads(response.read()))
