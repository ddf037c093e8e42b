"""Lists the files of the filesystem driver in the order of their names, a page at a time."""

import heapq
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from registry_data.storage.base import Key, Kind, Page, StoredObject
from registry_data.storage.keys import parse_key

_NAMES: Final = 10_000  # of one folder in memory at once
_OURS: Final = ("blobs", "uploads")  # other folders are not entered
_UPLOAD: Final = re.compile(r"uploads/([0-9a-f]{32})(?:\.(sha256|sha512):([0-9a-f]{64,128}))?")


def page_of_folder(root: Path, cursor: str, *, limit: int) -> Page:
    """The files after the one that `cursor` names.

    Raises:
        OSError: a folder cannot be read.
    """
    found = list(islice(_files(root, "", tuple(cursor.split("/")) if cursor else ()), limit))
    return Page(found, found[-1].name if len(found) == limit else None)


def upload_of(name: str) -> str:
    """The upload that a file belongs to.

    Raises:
        ValueError: the name has not the form of a part of an upload.
    """
    match = _UPLOAD.fullmatch(name)
    if match is None:
        raise ValueError(f"not a part of an upload: {name!r}")
    return match[1]


def _files(root: Path, folder: str, after: tuple[str, ...]) -> Iterator[StoredObject]:
    """All files below a folder, in the order of their path components, after a position."""
    first = after[0] if after else ""
    if len(after) > 1:
        yield from _entry(root, folder, first, after[1:])
    for name in _names(root / folder, first):
        yield from _entry(root, folder, name, ())


def _names(folder: Path, after: str) -> Iterator[str]:
    while True:
        with os.scandir(folder) as entries:
            names = heapq.nsmallest(_NAMES, (entry.name for entry in entries if entry.name > after))
        yield from names
        if len(names) < _NAMES:
            return
        after = names[-1]


def _entry(root: Path, folder: str, name: str, after: tuple[str, ...]) -> Iterator[StoredObject]:
    path = f"{folder}/{name}" if folder else name
    full = root / path
    is_folder = full.is_dir() and not full.is_symlink()
    if is_folder and path.split("/")[0] in _OURS:
        yield from _files(root, path, after)
        return
    with suppress(FileNotFoundError):  # deleted since the folder was read
        yield _object(path, full.lstat().st_size)


def _object(path: str, size: int) -> StoredObject:
    with suppress(ValueError):
        return StoredObject(Kind.CONTENT, path, parse_key(Key(path))[1], size)
    with suppress(ValueError):
        return StoredObject(Kind.UPLOAD, path, upload_of(path), size)
    return StoredObject(Kind.FOREIGN, path, "", size)
