"""Access to a running registry before a measurement starts: pushes content, requests tokens."""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from bench.client import Connection, Failure, Steps, drive
from bench.content import MANIFEST, Content

NAMESPACE: Final = "bench"


@dataclass
class Registry:
    """A registry that is being measured."""

    host: str
    secret: str | None = None
    processes: frozenset[int] = frozenset()
    written: int = 0  # approximate bytes in its folder
    seeded: set[str] = field(default_factory=set)
    _tokens: dict[str, str] = field(default_factory=dict)
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=f"http://{self.host}", timeout=60)

    def authorization(self, repository: str) -> str:
        """Value of the Authorization header; empty if the registry needs none."""
        return self._authorization(_scope(repository))

    def catalog_authorization(self) -> str:
        return self._authorization("registry:catalog:*")

    def _authorization(self, scope: str) -> str:
        if self.secret is None:
            return ""
        if scope not in self._tokens:
            self._take_tokens([scope])
        return self._tokens[scope]

    def take_tokens(self, repositories: Iterable[str]) -> None:
        """Request the tokens of many repositories concurrently; `authorization` returns them later."""
        if self.secret is not None:
            self._take_tokens([_scope(repository) for repository in repositories])

    def _take_tokens(self, scopes: Sequence[str]) -> None:
        basic = "Basic " + b64encode(f"bench:{self.secret}".encode()).decode()

        def take(connection: Connection, scope: str) -> Steps:
            target = f"/token?service=registry&scope={scope}"
            response = yield from connection.call("GET", target, f"Authorization: {basic}\r\n", expect=200)
            self._tokens[scope] = f"Bearer {json.loads(response.body)['token']}"

        operations = (partial(take, scope=scope) for scope in scopes)
        outcome = drive(self.host, operations, min(len(scopes), 8), seconds=60)
        if outcome.errors:
            raise Failure(outcome.first_error)

    def forget_tokens(self) -> None:
        """Tokens expire after five minutes, so every run requests new ones."""
        self._tokens.clear()

    def put_blob(self, repository: str, blob: Content) -> None:
        started = self._call("POST", f"/v2/{repository}/blobs/uploads/", repository)
        location = httpx.URL(started.headers["Location"]).copy_merge_params({"digest": blob.digest})
        self._call("PUT", str(location), repository, b"".join(blob.parts))

    def put_manifest(self, repository: str, tag: str, manifest: Content) -> None:
        target = f"/v2/{repository}/manifests/{tag}"
        self._call("PUT", target, repository, b"".join(manifest.parts), MANIFEST)

    def _call(
        self,
        method: str,
        target: str,
        repository: str,
        body: bytes = b"",
        kind: str = "application/octet-stream",
    ) -> httpx.Response:
        headers = {"Content-Type": kind, "Authorization": self.authorization(repository)}
        headers = {name: value for name, value in headers.items() if value}
        return self.http.request(method, target, content=body, headers=headers).raise_for_status()


class Files(Registry):
    """A web server with files at the paths of a registry. They can only be written to its folder."""

    folder: Path

    def put_blob(self, repository: str, blob: Content) -> None:
        self._write(f"v2/{repository}/blobs/{blob.digest}", blob)

    def put_manifest(self, repository: str, tag: str, manifest: Content) -> None:
        for reference in (tag, manifest.digest):
            self._write(f"v2/{repository}/manifests/{reference}", manifest)

    def _write(self, path: str, content: Content) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(content.parts))


def _scope(repository: str) -> str:
    return f"repository:{repository}:pull,push"
