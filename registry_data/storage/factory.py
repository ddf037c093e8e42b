"""Creates the driver that a storage URL names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry_data.storage.base import BlobStore
from registry_data.storage.filesystem import FilesystemStore


def open_store(url: str, *, reserve: int | None = None) -> BlobStore:
    """Create the driver for `file:///path` or `s3://...`, without any I/O.

    `reserve` is the free space to keep on the disk that the driver writes to, in bytes (see FreeSpace).

    Raises:
        ValueError: the scheme is unknown, or the driver rejects the URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FilesystemStore(Path(unquote(parts.path)), reserve=reserve)
    if parts.scheme == "s3":
        # Imported only if used: it takes as long as importing the rest of the data plane.
        from registry_data.storage.s3.address import Address
        from registry_data.storage.s3.store import S3Store, SigningS3Store

        address = Address.parse(url)
        driver = SigningS3Store if address.redirect else S3Store
        return driver(address, reserve=reserve)
    raise ValueError(f"no storage driver for {parts.scheme}://")
