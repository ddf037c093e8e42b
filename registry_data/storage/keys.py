"""Form of storage keys: `blobs/<algorithm>/<2 hex>/<hex>.<generation>` (invariant 1).

The generation is the id of the upload that became the blob. It makes a key unique when the same content is
uploaded again. The digest in the key allows a lost database to be rebuilt from the storage.
"""

import re
from typing import Final

from registry_data.storage.base import Key, UploadId

_KEY: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]{2})/(\2[0-9a-f]{62,126})\.([0-9a-f]{32})")
_UPLOAD: Final = re.compile(r"[0-9a-f]{32}")


def blob_key(algorithm: str, encoded: str, generation: str) -> Key:
    """The key of the content with digest `algorithm:encoded` that came with upload `generation`.

    Raises:
        ValueError: a part is malformed.
    """
    return check_key(Key(f"blobs/{algorithm}/{encoded[:2]}/{encoded}.{generation}"))


def parse_key(key: Key) -> tuple[str, str]:
    """A key's digest and generation.

    Raises:
        ValueError: the key is malformed.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not a storage key: {key!r}")
    return f"{match[1]}:{match[3]}", match[4]


def check_key(key: Key) -> Key:
    """Reject what could name another file or object.

    Raises:
        ValueError: the key is malformed.
    """
    parse_key(key)
    return key


def check_generation(upload: UploadId, key: Key) -> str:
    """The digest of a key that belongs to an upload.

    Raises:
        ValueError: the key's generation is not the upload's id.
    """
    digest, generation = parse_key(key)
    if generation != upload:
        raise ValueError(f"the key {key} does not belong to the upload {upload}")
    return digest


def check_upload(upload: UploadId) -> UploadId:
    """Reject what could name another file or object.

    Raises:
        ValueError: the upload id is malformed.
    """
    if not _UPLOAD.fullmatch(upload):
        raise ValueError(f"not an upload id: {upload!r}")
    return upload
