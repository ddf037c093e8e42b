"""From a storage URL to a driver."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from registry_data.storage.base import BlobStore
from registry_data.storage.filesystem import FilesystemStore


def open_store(url: str, *, reserve: int | None = None) -> BlobStore:
    """Make the driver for `file:///path` or `s3://...`; it reads and writes nothing before it is used.

    `reserve` is what stays free of the disk that it writes to, in bytes (see Room).

    Raises:
        ValueError: no driver knows the scheme, or the URL is not as its driver needs it.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FilesystemStore(Path(unquote(parts.path)), reserve=reserve)
    if parts.scheme == "s3":
        # Only where it is the store: importing it takes as long as all the rest of the data plane.
        from registry_data.storage.s3.address import Address
        from registry_data.storage.s3.store import S3Store, SigningS3Store

        address = Address.parse(url)
        driver = SigningS3Store if address.redirect else S3Store
        return driver(address, reserve=reserve)
    raise ValueError(f"no storage driver for {parts.scheme}://")
