"""Names of stored contents: `blobs/<algorithm>/<2 hex>/<hex>.<generation>` (invariant 1).

The generation makes a key unique even when the same content comes again; the digest lets a lost database
be made again from what is stored.
"""

import re
from typing import Final

from registry_data.storage.base import Key, UploadId

_KEY: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]{2})/(\2[0-9a-f]{62,126})\.([0-9a-f]{32})")
_UPLOAD: Final = re.compile(r"[0-9a-f]{32}")


def blob_key(algorithm: str, encoded: str, generation: str) -> Key:
    """The key for content with this digest that came with the upload of this id.

    Raises:
        ValueError: a part has not its form.
    """
    return check_key(Key(f"blobs/{algorithm}/{encoded[:2]}/{encoded}.{generation}"))


def parse_key(key: Key) -> tuple[str, str]:
    """A key's digest and generation.

    Raises:
        ValueError: it is no key.
    """
    match = _KEY.fullmatch(check_key(key))
    return (f"{match[1]}:{match[3]}", match[4]) if match else ("", "")


def check_key(key: Key) -> Key:
    """Let nothing through that could name another file.

    Raises:
        ValueError: it is no key.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a storage key: {key!r}")
    return key


def check_upload(upload: UploadId) -> UploadId:
    """Let nothing through that could name another file.

    Raises:
        ValueError: it is no upload's id.
    """
    if not _UPLOAD.fullmatch(upload):
        raise ValueError(f"not an upload id: {upload!r}")
    return upload
