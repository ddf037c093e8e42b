"""The requests that the driver makes of a bucket, with S3's errors in the protocol's words.

The SDK has conditional writes and single parts only behind its private methods; all use of them is here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.commonconfig import Tags
from minio.datatypes import Object, Part
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from registry_data.storage.base import PIECE, Full, NotStored, StorageError, Unavailable
from registry_data.storage.s3.address import Address

if TYPE_CHECKING:
    from minio.helpers import DictType

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchUpload"})
_NO_ROOM: Final = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})

# At worst two tries of 3 + 12 seconds, or four short ones where the server answers that it is busy.
_TIMEOUT: Final = Timeout(connect=3, read=12)
_RETRIES: Final = Retry(
    total=3,
    connect=1,
    read=1,
    backoff_factor=0.2,
    status_forcelist=[500, 502, 503, 504],
    raise_on_status=False,  # the answer itself says why
    respect_retry_after_header=False,
)


class Changed(Unavailable):
    """A conditional write came too late: somebody else wrote first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A small object, and how old it is by the server's own clock."""

    body: bytes
    etag: str
    age: timedelta


class Bucket:
    """One bucket through one pool of connections, for one process: connections do not survive a fork."""

    def __init__(self, address: Address) -> None:
        self.name = address.bucket
        self._client = _client(address, address.endpoint, secure=address.secure)
        self._public = _client(address, address.public_endpoint, secure=address.public_secure)

    @property
    def client(self) -> Minio:
        """The SDK, for what is asked of the bucket itself."""
        return self._client

    def put(
        self,
        name: str,
        body: bytes | memoryview,
        *,
        if_match: str | None = None,
        only_new: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Write an object, whole or not at all; returns its ETag.

        Raises:
            Changed: it has not the ETag `if_match`, or is there although it has to be new.
        """
        headers = {"Content-Type": "application/octet-stream"}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        if only_new:
            headers["If-None-Match"] = "*"
        if tags:
            headers["x-amz-tagging"] = "&".join(f"{quote(key)}={quote(tags[key], safe='')}" for key in tags)
        return _etag(self._send("PUT", name, body=body, headers=headers))

    def get(self, name: str) -> Found:
        """Read a small object at once."""
        answer = self._send("GET", name)
        headers = answer.headers
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        changed = parsedate_to_datetime(headers["Last-Modified"])
        return Found(answer.data, _etag(answer), now - changed)

    def read(self, name: str, start: int, stop: int | None, *, etag: str | None = None) -> "Reader":
        """Read an object from `start` up to `stop`, which is more, as it comes.

        Raises:
            NotStored, Changed: it is not there, or has not this ETag.
            ValueError: there is nothing between the two. S3 would send all of the object.
        """
        if stop is not None and stop <= start:
            raise ValueError(f"no range: from {start} to {stop}")
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        is_part = start > 0 or stop is not None
        if is_part:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        answer = self._send("GET", name, headers=headers, preload=False)
        is_all = start == 0 and answer.headers.get("Content-Length") == str(stop)
        if is_part and answer.status != HTTPStatus.PARTIAL_CONTENT and not is_all:
            answer.close()
            raise Unavailable(f"S3 answered {answer.status} where a part of the object was asked for")
        return Reader(answer)

    def size(self, name: str) -> int:
        """How many bytes an object has."""
        return self._stat(name).size or 0

    def etag(self, name: str) -> str:
        """The ETag of what an object has now."""
        return (self._stat(name).etag or "").strip('"')

    def _stat(self, name: str) -> Object:
        try:
            with translated():
                return self._client.stat_object(self.name, name)
        except NotStored:
            # The answer to a HEAD does not say what is missing: the object, or all of the bucket (7).
            self.require()
            raise

    def delete(self, *names: str) -> None:
        """Remove objects; those that are not there are no error."""
        if len(names) == 1:
            with suppress(NotStored), translated():
                self._client.remove_object(self.name, names[0])
            return
        with translated():
            doomed = [DeleteObject(name) for name in names]
            errors = [error.code for error in self._client.remove_objects(self.name, doomed)]
        if set(errors) - _ABSENT:
            raise Unavailable(f"S3 did not delete: {errors}")

    def tag(self, name: str, tags: Mapping[str, str]) -> None:
        """Give an object these tags and no others."""
        chosen = Tags.new_object_tags()
        chosen.update(tags)
        with translated():
            self._client.set_object_tags(self.name, name, chosen)

    def url_for(self, name: str, *, expires_in: timedelta) -> str:
        """Where anyone may read an object until then."""
        with translated():
            return self._public.presigned_get_object(
                self.name,
                name,
                expires=expires_in,
                response_headers={"response-content-type": "application/octet-stream"},
            )

    def exists(self) -> bool:
        """Whether the bucket is there."""
        with translated():
            return self._client.bucket_exists(self.name)

    def require(self) -> None:
        """Raise Unavailable when the bucket is not there."""
        if not self.exists():
            raise Unavailable(f"there is no bucket {self.name}")

    def begin(self, name: str) -> str:
        """Begin a multipart upload; returns its id."""
        with translated():
            return self._client._create_multipart_upload(self.name, name, {})  # noqa: SLF001

    def put_part(self, name: str, multipart: str, number: int, body: memoryview) -> str:
        """Upload a part, also over an older one; returns its ETag."""
        query = {"partNumber": str(number), "uploadId": multipart}
        return _etag(self._send("PUT", name, body=body, query=query))

    def copy_part(self, name: str, multipart: str, number: int, *, start: int, stop: int) -> str:
        """Make a part of what the object with the same name has now, on the server; returns its ETag."""
        headers = cast(
            "DictType",
            {
                "x-amz-copy-source": quote(f"/{self.name}/{name}"),
                "x-amz-copy-source-range": f"bytes={start}-{stop - 1}",
            },
        )
        with translated():
            return self._client._upload_part_copy(self.name, name, multipart, number, headers)[0]  # noqa: SLF001

    def parts(self, name: str, multipart: str, *, first: int) -> list[Part]:
        """The first so many parts of a multipart upload, in order."""
        found: list[Part] = []
        more = True
        while more and len(found) < first:
            with translated():
                listed = self._client._list_parts(  # noqa: SLF001
                    self.name,
                    name,
                    multipart,
                    part_number_marker=str(found[-1].part_number) if found else None,
                )
            found += listed.parts
            more = listed.is_truncated and bool(listed.parts)
        return found[:first]

    def complete(self, name: str, multipart: str, parts: list[Part]) -> None:
        """Make these parts the object; S3 checks that they are still the ones with these ETags."""
        with translated():
            done = self._client._complete_multipart_upload(self.name, name, multipart, parts)  # noqa: SLF001
        if not done.etag:  # an error may come with the status 200, when it took long
            raise Unavailable("S3 did not complete the multipart upload")

    def abort_all(self, name: str) -> None:
        """End every multipart upload to a name, whoever began it."""
        with translated():
            listed = self._client._list_multipart_uploads(self.name, prefix=name)  # noqa: SLF001
            ids = [upload.upload_id for upload in listed.uploads if upload.object_name == name]
        for multipart in filter(None, ids):
            try:
                with translated():
                    self._client._abort_multipart_upload(self.name, name, multipart)  # noqa: SLF001
            except NotStored:
                continue

    def _send(
        self,
        method: str,
        name: str,
        *,
        body: bytes | memoryview | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        preload: bool = True,
    ) -> BaseHTTPResponse:
        with translated():
            return self._client._execute(  # noqa: SLF001
                method,
                self.name,
                name,
                body=cast("bytes | None", body),
                headers=cast("DictType", dict(headers or {})),
                query_params=cast("DictType", dict(query or {})),
                preload_content=preload,
                no_body_trace=True,
            )


class Reader:
    """An iterator over an answer's body; gives the connection back at the end or when it is forgotten."""

    def __init__(self, answer: BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> "Reader":
        return self

    def __next__(self) -> bytes:
        with translated():
            piece = self._answer.read(PIECE)
        if not piece:
            self._answer.release_conn()
            raise StopIteration
        return piece

    @property
    def etag(self) -> str:
        """The object's ETag."""
        return _etag(self._answer)

    @property
    def length(self) -> int:
        """How many bytes the answer has in all."""
        with translated():
            return int(self._answer.headers.get("Content-Length", "no length"))

    def close(self) -> None:
        """Drop what has not been read; again is no harm."""
        self._answer.close()

    def __del__(self) -> None:
        self.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of the SDK, of HTTP and of the network into the protocol's."""
    try:
        yield
    except S3Error as error:
        raise _storage_error(error) from error
    except (MinioException, HTTPError, ParseError, OSError, ValueError) as error:
        raise Unavailable(f"S3 did not answer as it should: {error}") from error


def _storage_error(error: S3Error) -> StorageError:
    text = f"S3 says {error.code}: {error.message}"
    if error.code in _ABSENT:
        return NotStored(text)
    if error.code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return Changed(text)
    if error.code in _NO_ROOM or error.response.status == HTTPStatus.INSUFFICIENT_STORAGE:
        return Full(text)
    return Unavailable(text)


def _client(address: Address, endpoint: str, *, secure: bool) -> Minio:
    return Minio(
        endpoint,
        access_key=address.access_key,
        secret_key=address.secret_key,
        secure=secure,
        region=address.region,
        http_client=PoolManager(timeout=_TIMEOUT, retries=_RETRIES, maxsize=64),
    )


def _etag(answer: BaseHTTPResponse) -> str:
    return answer.headers.get("ETag", "").strip('"')
