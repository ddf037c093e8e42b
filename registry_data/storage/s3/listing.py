"""Lists the objects of a bucket, and then its unfinished multipart uploads, a page at a time."""

import re
from typing import Final

from registry_data.storage.base import Kind, Page, StoredObject
from registry_data.storage.s3.bucket import Bucket
from registry_data.storage.s3.check import PROBES

_BLOB: Final = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{30})")
_UPLOAD: Final = re.compile(r"uploads/([0-9a-f]{32})/(state|tail\.[01])")
# A cursor is the name of the last object, or one of these and the position in the list of multipart uploads.
_MULTIPARTS: Final = "//multiparts/"


def page_of_bucket(bucket: Bucket, cursor: str, *, limit: int) -> Page:
    """The objects after a cursor."""
    if cursor.startswith(_MULTIPARTS):
        return _multiparts(bucket, cursor.removeprefix(_MULTIPARTS), limit)
    found = bucket.list_objects(after=cursor, limit=limit)
    objects = [_object(name, size) for name, size in found if not name.startswith(PROBES)]
    return Page(objects, found[-1][0] if len(found) == limit else _MULTIPARTS)


def upload_of(kind: Kind, name: str) -> str:
    """The upload that an object belongs to.

    Raises:
        ValueError: the name has not the form of its kind.
    """
    match = (_UPLOAD if kind is Kind.UPLOAD else _BLOB).fullmatch(name)
    if match is None or kind is Kind.FOREIGN:
        raise ValueError(f"not an object of this registry: {name!r}")
    return match[1] if kind is Kind.UPLOAD else match[2]


def _object(name: str, size: int) -> StoredObject:
    for kind in (Kind.CONTENT, Kind.UPLOAD):
        try:
            return StoredObject(kind, name, upload_of(kind, name), size)
        except ValueError:
            continue
    return StoredObject(Kind.FOREIGN, name, "", size)


def _multiparts(bucket: Bucket, after: str, limit: int) -> Page:
    """Those of other programs are left out: their objects do not exist yet."""
    names, next_marker = bucket.list_multiparts(after=after, limit=limit)
    ours = [name for name in dict.fromkeys(names) if _BLOB.fullmatch(name)]
    objects = [StoredObject(Kind.UNFINISHED, name, upload_of(Kind.UNFINISHED, name), 0) for name in ours]
    return Page(objects, None if next_marker is None else _MULTIPARTS + next_marker)
