"""What an upload is: one small object that says it, written only on condition that nobody else has.

uploads/<id>/state                   this, in JSON
uploads/<id>/tail.0, tail.1          bytes behind the last whole part; the state names one of the two
blobs/<2 hex of the id>/<id>         target of the multipart upload, and in the end the blob
"""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Final, Self

from registry_data.storage.base import Unavailable, UploadId
from registry_data.storage.keys import check_upload

PART: Final = 8 * 1024 * 1024  # bytes
_PARTS_OF_A_SIZE: Final = 1000


@dataclass(frozen=True, slots=True)
class State:
    """An upload at a moment. What is not in here never happened."""

    multipart: str = ""  # S3's id of the multipart upload, once there is one
    parts: int = 0  # so many of its parts count
    chain: str = ""  # a digest of their ETags: should a late writer replace one, it is seen
    tail: int = 0  # bytes behind them
    tail_etag: str = ""
    tail_slot: int = 0
    sealed: int | None = None  # so many bytes of one finished object are the upload, instead of parts
    key: str = ""  # it was, or may have been, published under
    writer: str = ""  # the process that has the lease
    stamp: str = ""  # which write of the state this is

    @property
    def size(self) -> int:
        """How many bytes the upload has."""
        return where_part_begins(self.parts) + self.tail if self.sealed is None else self.sealed

    def dump(self) -> bytes:
        """As the object has it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, body: bytes) -> Self:
        """Read the object.

        Raises:
            Unavailable: it is not ours.
        """
        try:
            return cls(**json.loads(body))
        except (ValueError, TypeError) as error:
            raise Unavailable("an upload's state cannot be read") from error


def part_size(index: int) -> int:
    """Bytes of part `index` (from 0). They double every 1000: S3 takes 10 000, and 5 TiB have to fit."""
    return PART << (index // _PARTS_OF_A_SIZE)


def where_part_begins(index: int) -> int:
    """The offset in bytes at which part `index` (from 0) begins."""
    doublings, rest = divmod(index, _PARTS_OF_A_SIZE)
    return PART * (_PARTS_OF_A_SIZE * ((1 << doublings) - 1) + rest * (1 << doublings))


def parts_checksum(chain: str, etag: str) -> str:
    """The chain with one more part."""
    return sha256(f"{chain} {etag}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """The names of an upload's objects."""

    upload: UploadId

    def __post_init__(self) -> None:
        check_upload(self.upload)

    @property
    def state(self) -> str:
        """What says what the upload is."""
        return f"uploads/{self.upload}/state"

    def tail(self, slot: int) -> str:
        """Bytes behind the last whole part."""
        return f"uploads/{self.upload}/tail.{slot}"

    @property
    def blob(self) -> str:
        """What it becomes."""
        return blob_object(self.upload)


def blob_object(generation: str) -> str:
    """The object of a blob. Its digest is in its tags: S3 wants a name before the content is known."""
    return f"blobs/{generation[:2]}/{generation}"
