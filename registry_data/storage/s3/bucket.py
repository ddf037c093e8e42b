"""Requests to a bucket through the minio SDK, with S3's errors translated to the protocol's.

The SDK offers conditional writes and single parts only in private methods. This is the only module that uses
them, and tests/unit/storage/test_minio_sdk.py checks that they exist as used here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote
from weakref import finalize
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.commonconfig import Tags
from minio.datatypes import CompleteMultipartUploadResult, Object, Part
from minio.deleteobjects import DeleteError, DeleteObject
from minio.error import MinioException, S3Error
from minio.helpers import md5sum_hash
from minio.xml import Element, SubElement, getbytes
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError

from registry_data.storage.base import PIECE, InsufficientStorage, NotStored, StorageError, Unavailable
from registry_data.storage.s3.address import Address

if TYPE_CHECKING:
    from minio.helpers import DictType

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchUpload"})
_MOST_DELETIONS: Final = 1000  # objects in one request, by the S3 API
_NO_SPACE: Final = frozenset({"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"})

# At most two attempts of 3 + 12 seconds, or four short ones if the server responds that it is busy.
_TIMEOUT: Final = Timeout(connect=3, read=12)
_RETRIES: Final = Retry(
    total=3,
    connect=1,
    read=1,
    backoff_factor=0.2,
    status_forcelist=[500, 502, 503, 504],
    raise_on_status=False,  # the response is translated below
    respect_retry_after_header=False,
)


class Changed(Unavailable):
    """A conditional request failed: the object was changed by another writer."""


@dataclass(frozen=True, slots=True)
class SmallObject:
    """A small object, and its age by the server's clock."""

    body: bytes
    etag: str
    age: timedelta


class Bucket:
    """A bucket and a connection pool. For one process only: connections cannot be shared over a fork."""

    def __init__(self, address: Address) -> None:
        self.name = address.bucket
        self._client = _client(address, address.endpoint, secure=address.secure)
        self._public = _client(address, address.public_endpoint, secure=address.public_secure)

    @property
    def client(self) -> Minio:
        """The SDK's client, for requests about the bucket itself."""
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
        """Write an object atomically; returns its ETag.

        Raises:
            Changed: its ETag is not `if_match`, or it exists although `only_new` is set.
        """
        headers = {"Content-Type": "application/octet-stream", **_conditions(if_match, only_new=only_new)}
        if tags:
            headers["x-amz-tagging"] = "&".join(f"{quote(key)}={quote(tags[key], safe='')}" for key in tags)
        return _etag(self._send("PUT", name, body=body, headers=headers))

    def get(self, name: str) -> SmallObject:
        """Read a small object into memory."""
        response = self._send("GET", name)
        headers = response.headers
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        changed = parsedate_to_datetime(headers["Last-Modified"])
        return SmallObject(response.data, _etag(response), now - changed)

    def read(self, name: str, start: int, stop: int | None, *, etag: str | None = None) -> "Reader":
        """Read an object from `start` up to `stop`, in pieces.

        Raises:
            NotStored: it does not exist.
            Changed: its ETag is not `etag`.
            ValueError: the range is empty. S3 would send the whole object.
        """
        if stop is not None and stop <= start:
            raise ValueError(f"empty range: from {start} to {stop}")
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        is_part = start > 0 or stop is not None
        if is_part:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        response = self._send("GET", name, headers=headers, preload=False)
        is_all = start == 0 and response.headers.get("Content-Length") == str(stop)
        if is_part and response.status != HTTPStatus.PARTIAL_CONTENT and not is_all:
            response.close()
            raise Unavailable(f"S3 responded {response.status} to a request for a part of an object")
        return Reader(response)

    def size(self, name: str) -> int:
        """Size of an object in bytes."""
        return self._stat(name).size or 0

    def etag(self, name: str) -> str:
        """An object's current ETag."""
        return (self._stat(name).etag or "").strip('"')

    def _stat(self, name: str) -> Object:
        try:
            with translate_errors():
                return self._client.stat_object(self.name, name)
        except NotStored:
            # The response to HEAD does not say whether the object or the bucket is missing (invariant 7).
            self.require_exists()
            raise

    def delete(self, *names: str) -> None:
        """Delete objects. Missing ones are not an error."""
        if len(names) == 1:
            with suppress(NotStored), translate_errors():
                self._client.remove_object(self.name, names[0])
            return
        with translate_errors():
            doomed = [DeleteObject(name) for name in names]
            errors = [error.code for error in self._client.remove_objects(self.name, doomed)]
        if set(errors) - _ABSENT:
            raise Unavailable(f"S3 failed to delete objects: {', '.join(map(str, errors))}")

    def delete_many(self, names: Sequence[str]) -> dict[str, StorageError]:
        """Delete objects; returns an error for each that S3 has not confirmed as deleted or absent."""
        errors: dict[str, StorageError] = {}
        for start in range(0, len(names), _MOST_DELETIONS):
            batch = names[start : start + _MOST_DELETIONS]
            try:
                errors |= self._delete_batch(batch)
            except StorageError as error:
                errors |= dict.fromkeys(batch, error)
        return errors

    def _delete_batch(self, names: Sequence[str]) -> dict[str, StorageError]:
        doomed = [DeleteObject(name) for name in names]
        with translate_errors():
            # Not `remove_objects`, which requests a response without confirmations.
            result = self._client._delete_objects(self.name, doomed, quiet=False)  # noqa: SLF001
        failed = {error.name: error for error in result.error_list if error.code not in _ABSENT}
        absent = {error.name for error in result.error_list if error.code in _ABSENT}
        confirmed = absent | {each.name for each in result.object_list}
        return {
            name: Unavailable(_deletion_failed(failed.get(name)))
            for name in names
            if name in failed or name not in confirmed
        }

    def tag(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace an object's tags."""
        chosen = Tags.new_object_tags()
        chosen.update(tags)
        with translate_errors():
            self._client.set_object_tags(self.name, name, chosen)

    def tags(self, name: str) -> dict[str, str]:
        """An object's tags."""
        with translate_errors():
            return dict(self._client.get_object_tags(self.name, name) or {})

    def url_for(self, name: str, *, expires_in: timedelta) -> str:
        """A presigned URL at which a client can read an object."""
        with translate_errors():
            return self._public.presigned_get_object(
                self.name,
                name,
                expires=expires_in,
                response_headers={"response-content-type": "application/octet-stream"},
            )

    def exists(self) -> bool:
        """Whether the bucket exists."""
        with translate_errors():
            return self._client.bucket_exists(self.name)

    def require_exists(self) -> None:
        """Raise Unavailable if the bucket does not exist."""
        if not self.exists():
            raise Unavailable(f"the bucket {self.name} does not exist")

    def begin_multipart(self, name: str) -> str:
        """Create a multipart upload; returns its id."""
        with translate_errors():
            return self._client._create_multipart_upload(self.name, name, {})  # noqa: SLF001

    def put_part(self, name: str, multipart: str, number: int, body: memoryview) -> str:
        """Upload a part, replacing an older one with its number; returns its ETag."""
        query = {"partNumber": str(number), "uploadId": multipart}
        return _etag(self._send("PUT", name, body=body, query=query))

    def copy_part(self, name: str, multipart: str, number: int, *, start: int, stop: int) -> str:
        """Copy bytes of the existing object with this name into a part, on the server; returns its ETag."""
        headers = cast(
            "DictType",
            {
                "x-amz-copy-source": quote(f"/{self.name}/{name}"),
                "x-amz-copy-source-range": f"bytes={start}-{stop - 1}",
            },
        )
        with translate_errors():
            return self._client._upload_part_copy(self.name, name, multipart, number, headers)[0]  # noqa: SLF001

    def parts(self, name: str, multipart: str, *, first: int) -> list[Part]:
        """The first `first` parts of a multipart upload, in order."""
        found: list[Part] = []
        more = True
        while more and len(found) < first:
            with translate_errors():
                listed = self._client._list_parts(  # noqa: SLF001
                    self.name,
                    name,
                    multipart,
                    part_number_marker=str(found[-1].part_number) if found else None,
                )
            found += listed.parts
            more = listed.is_truncated and bool(listed.parts)
        return found[:first]

    def complete_multipart(
        self, name: str, multipart: str, parts: list[Part], *, if_match: str | None
    ) -> None:
        """Combine parts to the object. S3 checks that each part still has its ETag.

        It becomes a new object, or replaces the one with the ETag `if_match`.

        Raises:
            Changed: there is another object. Servers that ignore this condition replace it.
            NotStored: there is no such multipart upload.
        """
        headers = _conditions(if_match, only_new=if_match is None)
        body = _list_of_parts(parts)
        with translate_errors():
            done = CompleteMultipartUploadResult(
                self._client._execute(  # noqa: SLF001 - the SDK's own method for it takes no conditions
                    "POST",
                    self.name,
                    name,
                    body=body,
                    headers={
                        "Content-Type": "application/xml",
                        "Content-MD5": md5sum_hash(body) or "",
                        **headers,
                    },
                    query_params={"uploadId": multipart},
                )
            )
        if not done.etag:  # S3 may send an error with status 200 if the request took long
            raise Unavailable("S3 failed to complete the multipart upload")

    def abort_multiparts(self, name: str) -> None:
        """Abort every multipart upload to a name."""
        with translate_errors():
            listed = self._client._list_multipart_uploads(self.name, prefix=name)  # noqa: SLF001
            ids = [upload.upload_id for upload in listed.uploads if upload.object_name == name]
        for multipart in filter(None, ids):
            try:
                with translate_errors():
                    self._client._abort_multipart_upload(self.name, name, multipart)  # noqa: SLF001
            except NotStored:
                continue

    def list_objects(self, *, after: str, limit: int) -> list[tuple[str, int]]:
        """Names and sizes of up to `limit` objects whose names follow `after`, in order."""
        with translate_errors():
            listed = self._client.list_objects(self.name, recursive=True, start_after=after or None)
            return [(str(found.object_name), found.size or 0) for found in islice(listed, limit)]

    def list_multiparts(self, *, after: str, limit: int) -> tuple[list[str], str | None]:
        """Names of multipart uploads after a marker, and the marker of the next page; None at the end.

        MinIO returns those that began since its own start: it finds older ones only by their whole name, and
        aborts them itself after some time (docs/storage.md).
        """
        with translate_errors():
            listed = self._client._list_multipart_uploads(  # noqa: SLF001
                self.name, key_marker=after or None, max_uploads=limit
            )
        names = [str(upload.object_name) for upload in listed.uploads]
        return names, listed.next_key_marker if listed.is_truncated and names else None

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
        with translate_errors():
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
    """Iterator over a response's body. The connection goes back to the pool at the end.

    Garbage collection closes one that was not read to its end.
    """

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        self.close: Final = finalize(self, response.close)
        self.piece_size = PIECE

    def __iter__(self) -> "Reader":
        return self

    def __next__(self) -> bytes:
        with translate_errors():
            piece = self._response.read(self.piece_size)
        if not piece:
            self._response.release_conn()
            raise StopIteration
        return piece

    @property
    def etag(self) -> str:
        """The object's ETag."""
        return _etag(self._response)

    @property
    def length(self) -> int:
        """Length of the whole body in bytes."""
        with translate_errors():
            return int(self._response.headers.get("Content-Length", "no length"))


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the protocol's errors for those of the SDK, of HTTP and of the network."""
    try:
        yield
    except S3Error as error:
        raise _storage_error(error) from error
    except (MinioException, HTTPError, ParseError, OSError, ValueError) as error:
        raise Unavailable(f"the request to S3 failed: {error}") from error


def _storage_error(error: S3Error) -> StorageError:
    text = f"S3 says {error.code}: {error.message}"
    if error.code in _ABSENT:
        return NotStored(text)
    if error.code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return Changed(text)
    if error.code in _NO_SPACE or error.response.status == HTTPStatus.INSUFFICIENT_STORAGE:
        return InsufficientStorage(text)
    return Unavailable(text)


def _deletion_failed(error: DeleteError | None) -> str:
    if error is None:
        return "S3 has not confirmed that it deleted the object"
    return f"S3 failed to delete the object: {error.code} {error.message or ''}".rstrip()


def _client(address: Address, endpoint: str, *, secure: bool) -> Minio:
    return Minio(
        endpoint,
        access_key=address.access_key,
        secret_key=address.secret_key,
        secure=secure,
        region=address.region,
        http_client=PoolManager(timeout=_TIMEOUT, retries=_RETRIES, maxsize=64),
    )


def _conditions(if_match: str | None, *, only_new: bool) -> dict[str, str]:
    """The headers of a conditional write."""
    match = {} if if_match is None else {"If-Match": f'"{if_match}"'}
    return match | ({"If-None-Match": "*"} if only_new else {})


def _list_of_parts(parts: list[Part]) -> bytes:
    """The body of the request that completes a multipart upload."""
    root = Element("CompleteMultipartUpload")
    for part in parts:
        element = SubElement(root, "Part")
        SubElement(element, "PartNumber", str(part.part_number))
        SubElement(element, "ETag", f'"{part.etag}"')
    return getbytes(root)


def _etag(response: BaseHTTPResponse) -> str:
    return response.headers.get("ETag", "").strip('"')
