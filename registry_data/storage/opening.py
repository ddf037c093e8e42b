"""From a storage URL to a driver."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry_data.storage.base import BlobStore
from registry_data.storage.filesystem import FilesystemStore


def open_store(url: str) -> BlobStore:
    """Make the driver for `file:///path`; it reads and writes nothing before it is used.

    Raises:
        ValueError: no driver knows the scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FilesystemStore(Path(unquote(parts.path)))
    raise ValueError(f"no storage driver for {parts.scheme}://")
