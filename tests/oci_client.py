"""A small OCI client for tests: does what it is told, also what no proper client would."""

import hashlib
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass
class OciClient:
    """Talks to one registry host as one caller; `secret` None is an anonymous one."""

    host: str
    secret: str | None
    tls: ssl.SSLContext | None = None  # None: plain HTTP
    http: httpx.Client = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)
    renewed_at: dict[str, float] = field(default_factory=dict)  # by the monotonic clock

    def __post_init__(self) -> None:
        scheme = "http" if self.tls is None else "https"
        self.http = httpx.Client(base_url=f"{scheme}://{self.host}", timeout=60, verify=self.tls or True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def token(self, *scopes: str) -> str:
        """A token for these scopes; kept for a while, so that later calls use one that was issued before."""
        key = " ".join(scopes)
        if key not in self.tokens or time.monotonic() > self.renewed_at[key]:
            auth = None if self.secret is None else ("anyone", self.secret)
            answer = self.http.get(
                "/token", params={"service": "registry", "scope": key}, auth=auth or httpx.USE_CLIENT_DEFAULT
            )
            answer.raise_for_status()
            self.tokens[key] = answer.json()["token"]
            self.renewed_at[key] = time.monotonic() + answer.json()["expires_in"] / 2
        return self.tokens[key]

    def call(self, method: str, path: str, *, scope: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(scope)}", **arguments.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **arguments)

    def on(self, repository: str, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A call below a repository, with a token that asks for everything on it."""
        scope = f"repository:{repository}:pull,push,delete"
        return self.call(method, f"/v2/{repository}/{path}", scope=scope, **arguments)

    @contextmanager
    def stream(self, repository: str, path: str, **headers: str) -> Iterator[httpx.Response]:
        headers["Authorization"] = f"Bearer {self.token(f'repository:{repository}:pull')}"
        with self.http.stream("GET", f"/v2/{repository}/{path}", headers=headers) as answer:
            yield answer

    def start_upload(self, repository: str, **params: str) -> str:
        answer = self.on(repository, "POST", "blobs/uploads/", params=params)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"].partition(f"/v2/{repository}/")[2]

    def push_blob(self, repository: str, data: bytes) -> str:
        digest = digest_of(data)
        answer = self.on(
            repository, "PUT", self.start_upload(repository), params={"digest": digest}, content=data
        )
        assert answer.status_code == 201, answer.text
        return digest

    def put_manifest(
        self, repository: str, reference: str, manifest: dict[str, Any] | bytes, **arguments: Any
    ) -> httpx.Response:
        body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        media_type = OCI_MANIFEST if isinstance(manifest, bytes) else manifest.get("mediaType", OCI_MANIFEST)
        headers = {"Content-Type": media_type, **arguments.pop("headers", {})}
        return self.on(
            repository, "PUT", f"manifests/{reference}", content=body, headers=headers, **arguments
        )

    def push_image(self, repository: str, tag: str, *layers: bytes) -> str:
        """Push config, layers and manifest; returns the manifest's digest."""
        config = b'{"architecture":"amd64","os":"linux"}'
        for data in (config, *layers):
            self.push_blob(repository, data)
        answer = self.put_manifest(repository, tag, image_manifest(config, layers))
        assert answer.status_code == 201, answer.text
        return answer.headers["docker-content-digest"]

    def pull_status(self, repository: str, reference: str) -> int:
        """The status of a manifest GET with a fresh token, as a client without memory gets it."""
        self.tokens.pop(f"repository:{repository}:pull", None)
        return self.call(
            "GET", f"/v2/{repository}/manifests/{reference}", scope=f"repository:{repository}:pull"
        ).status_code


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def image_manifest(config: bytes, layers: Sequence[bytes], **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
        **more,
    }
