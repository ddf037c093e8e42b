"""Works that upload a large unique blob, in the three ways that clients use."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

from bench.client import Connection, Operation, Steps
from bench.content import Content, unique
from bench.measure import Load, Loop
from bench.registry import NAMESPACE, Registry
from bench.work import BULK, LARGE, Work

_REPOSITORY: Final = f"{NAMESPACE}/uploads"
_CHUNK: Final = 5 * 10**6  # bytes

BYTES: Final = "Content-Type: application/octet-stream\r\n"


class Upload(Protocol):
    """A way to upload a blob."""

    def __call__(
        self, connection: Connection, /, *, repository: str, headers: str, blob: Content
    ) -> Steps: ...


def authorized(value: str) -> str:
    """The Authorization header line, or an empty string."""
    return f"Authorization: {value}\r\n" if value else ""


def closing(location: str, digest: str) -> str:
    """URL of the closing PUT of an upload; the location may have a query."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def monolithic(connection: Connection, *, repository: str, headers: str, blob: Content) -> Steps:
    """POST, then one PUT with the whole blob."""
    started = yield from connection.call("POST", f"/v2/{repository}/blobs/uploads/", headers, expect=202)
    yield from connection.call(
        "PUT", closing(started.location, blob.digest), headers + BYTES, *blob.parts, expect=201
    )


def one_patch(connection: Connection, *, repository: str, headers: str, blob: Content) -> Steps:
    """POST, one PATCH with the whole blob, PUT: like docker."""
    started = yield from connection.call("POST", f"/v2/{repository}/blobs/uploads/", headers, expect=202)
    patched = yield from connection.call("PATCH", started.location, headers + BYTES, *blob.parts, expect=202)
    yield from connection.call("PUT", closing(patched.location, blob.digest), headers, expect=201)


def chunks(connection: Connection, *, repository: str, headers: str, blob: Content) -> Steps:
    """POST, one PATCH for every 5 MB, PUT."""
    upload = yield from connection.call("POST", f"/v2/{repository}/blobs/uploads/", headers, expect=202)
    for start in range(0, blob.size, _CHUNK):
        end = min(start + _CHUNK, blob.size)
        position = f"{headers}{BYTES}Content-Range: {start}-{end - 1}\r\n"
        upload = yield from connection.call(
            "PATCH", upload.location, position, *blob.slice(start, end), expect=202
        )
    yield from connection.call("PUT", closing(upload.location, blob.digest), headers, expect=201)


def _uploading(upload: Upload) -> Callable[[Registry, int], Load]:
    def load(registry: Registry, _: int) -> Load:
        headers = authorized(registry.authorization(_REPOSITORY))
        unique(LARGE)  # generates the shared part before the measurement starts
        return Loop(_operations(upload, headers))

    return load


def _operations(upload: Upload, headers: str) -> Iterator[Operation]:
    while True:
        blob = unique(LARGE)
        yield partial(upload, repository=_REPOSITORY, headers=headers, blob=blob)


UPLOADS: Final = tuple(
    Work(f"upload of 200 MB, {how}", _uploading(upload), BULK, size=LARGE, writes=LARGE)
    for how, upload in (("one PATCH", one_patch), ("monolithic", monolithic), ("chunks of 5 MB", chunks))
)
