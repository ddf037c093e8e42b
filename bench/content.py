"""Content to push, with digests: fixed, or unique without the cost of generating all of it."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from secrets import token_bytes
from typing import Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_TAIL: Final = 4096  # bytes that make content unique
_numbers: Final = count()


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes in parts, so that large contents share most of their memory."""

    parts: tuple[bytes | memoryview, ...]
    digest: str
    size: int

    def slice(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes from `start` up to `end`, without a copy."""
        for part in self.parts:
            if piece := memoryview(part)[max(start, 0) : max(end, 0)]:
                yield piece
            start, end = start - len(part), end - len(part)


def content(data: bytes) -> Content:
    return Content((data,), f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


@cache
def fixed(size: int, seed: int = 0) -> Content:
    """Random bytes that are the same for every side and every run."""
    return content(random.Random(f"{seed} {size}").randbytes(size))


@cache
def sparse(size: int) -> Content:
    """A layer like those of zot's `zb`: 4 KiB of random bytes, then zeros."""
    return content(random.Random(size).randbytes(4096) + bytes(size - 4096))


@cache
def _factory(size: int) -> Callable[[], Content]:
    common = memoryview(random.Random(-size).randbytes(size - _TAIL))
    state = hashlib.sha256(common)

    def make() -> Content:
        # The random part differs between processes, the number within one process.
        tail = (token_bytes(32) + b"%d" % next(_numbers)).ljust(_TAIL, b"\0")
        digest = state.copy()
        digest.update(tail)
        return Content((common, tail), f"sha256:{digest.hexdigest()}", size)

    return make


def unique(size: int) -> Content:
    """Content with a new digest. Only the last 4 KiB differ, so that generating it is cheap."""
    return _factory(size)()


def config(note: str = "") -> Content:
    """An image configuration like that of `zb`; a different note gives a different digest."""
    document = {
        "created": "2011-01-01T01:01:01Z",
        "author": f"ZotUser{note}",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return content(json.dumps(document, indent=2).encode())


def manifest(configuration: Content, layer: Content, note: str = "") -> Content:
    """The manifest of an image with one layer."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(configuration, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
        **({"annotations": {"note": note}} if note else {}),
    }
    return content(json.dumps(document, indent=2).encode())


def _descriptor(of: Content, media_type: str) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": of.digest, "size": of.size}
