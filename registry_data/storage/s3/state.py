"""The state object of an upload, and the names of an upload's objects.

uploads/<id>/state                   this state in JSON, replaced only by conditional writes
uploads/<id>/tail.0, tail.1          bytes after the last whole part; the state names one of the two
blobs/<2 hex of the id>/<id>         target of the multipart upload, and finally the blob
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final, Self

from registry_data.storage.base import Unavailable, UploadId
from registry_data.storage.keys import check_upload

PART: Final = 8 * 1024 * 1024  # bytes
_PARTS_OF_A_SIZE: Final = 1000
_OLD_NAMES: Final = {"chain": "parts_checksum", "stamp": "write_id"}  # of fields, in uploads begun before


@dataclass(frozen=True, slots=True)
class State:
    """An upload at one moment. Anything in S3 that the state does not mention is not part of the upload."""

    multipart: str = ""  # S3's id of the multipart upload, if there is one
    parts: int = 0  # number of its parts that belong to the upload
    parts_checksum: str = ""  # of their ETags; reveals a part that was replaced by a writer without the lease
    tail: int = 0  # bytes after the parts
    tail_etag: str = ""
    tail_slot: int = 0
    sealed: int | None = None  # the upload is the first bytes of a finished object, instead of parts
    replaces: str = ""  # ETag of an earlier finished object, which the parts and the tail include
    key: str = ""  # under which it was, or may have been, published
    writer: str = ""  # the process that has the lease
    write_id: str = ""  # identifies this version of the state

    @property
    def size(self) -> int:
        """Size of the upload in bytes."""
        return where_part_begins(self.parts) + self.tail if self.sealed is None else self.sealed

    def dump(self) -> bytes:
        """The object's content."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, body: bytes) -> Self:
        """Parse the object's content.

        Raises:
            Unavailable: it is not the state of an upload.
        """
        try:
            fields = json.loads(body)
            return cls(**{_OLD_NAMES.get(name, name): value for name, value in fields.items()})
        except (ValueError, TypeError, AttributeError) as error:
            raise Unavailable("the state of an upload in S3 is malformed") from error


def part_size(index: int) -> int:
    """Size in bytes of part `index` (from 0).

    It doubles every 1,000 parts, so that the 10,000 parts that S3 allows hold its largest object, 5 TiB.
    """
    return PART << (index // _PARTS_OF_A_SIZE)


def where_part_begins(index: int) -> int:
    """Offset in bytes of part `index` (from 0)."""
    doublings, rest = divmod(index, _PARTS_OF_A_SIZE)
    return PART * (_PARTS_OF_A_SIZE * ((1 << doublings) - 1) + rest * (1 << doublings))


def parts_checksum(previous: str, etag: str) -> str:
    """The checksum of some parts and one more, from the checksum of the former and the ETag of the latter."""
    return sha256(f"{previous} {etag}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """Names of an upload's objects."""

    upload: UploadId

    def __post_init__(self) -> None:
        check_upload(self.upload)

    @property
    def state(self) -> str:
        """The state object."""
        return f"uploads/{self.upload}/state"

    def tail(self, slot: int) -> str:
        """One of the two objects for the bytes after the last whole part."""
        return f"uploads/{self.upload}/tail.{slot}"

    @property
    def blob(self) -> str:
        """The object that the upload becomes."""
        return blob_object(self.upload)


def blob_object(generation: str) -> str:
    """The object of a blob.

    Its digest is a tag and not a part of the name: S3 needs the name before the content is known.
    """
    return f"blobs/{generation[:2]}/{generation}"
