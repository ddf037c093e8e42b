"""What must hold of a bucket before anything is kept in it, and what its owner should know."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import uuid4

from minio.commonconfig import ENABLED
from minio.lifecycleconfig import Rule

from registry_data.storage.base import StorageError, Unavailable
from registry_data.storage.s3.bucket import Bucket, Changed, translated

logger = logging.getLogger(__name__)

_OLD_UPLOADS: Final = 7  # days after which nobody goes on with an upload


def prepare(bucket: Bucket) -> None:
    """Make the bucket if it is not there, and see that it can be written as the driver needs it.

    Raises:
        Full, Unavailable: in words for an operator.
    """
    if not bucket.exists():
        try:
            with translated():
                bucket.client.make_bucket(bucket.name)
        except StorageError:
            bucket.require()  # else another process was faster
    _require_conditional_writes(bucket)
    for text in concerns(bucket):
        logger.warning("bucket %s: %s", bucket.name, text)


def _require_conditional_writes(bucket: Bucket) -> None:
    """Two writers of one upload are kept apart by these alone; a store that ignores them would lose bytes."""
    name = f"check/{uuid4().hex}"
    etag = bucket.put(name, b"1", only_new=True)
    try:
        for condition in ({"only_new": True}, {"if_match": "0" * len(etag)}):
            try:
                bucket.put(name, b"2", **condition)
            except Changed:
                continue
            raise Unavailable(
                "this S3 ignores If-Match or If-None-Match in PUT, which the registry relies on"
            )
        bucket.put(name, b"3", if_match=etag)
    finally:
        with suppress(StorageError):
            bucket.delete(name)


def concerns(bucket: Bucket) -> list[str]:
    """What of the bucket's settings keeps deleted bytes, or deletes what is needed; each in one sentence."""
    found: list[str] = []
    for ask in (_versioning, _object_lock, _lifecycle):
        # Not every S3 has all of these settings, nor every key the right to see them.
        with suppress(StorageError):
            found += ask(bucket)
    return found


def _versioning(bucket: Bucket) -> list[str]:
    with translated():
        status = bucket.client.get_bucket_versioning(bucket.name).status
    if status in (ENABLED, "Suspended"):
        return [f"versioning is {status}: what the registry deletes stays as an old version and takes room"]
    return []


def _object_lock(bucket: Bucket) -> list[str]:
    with translated():
        mode = bucket.client.get_object_lock_config(bucket.name).mode
    return [f"object lock is on ({mode or 'no default'}): what it retains cannot be deleted"]


def _lifecycle(bucket: Bucket) -> list[str]:
    with translated():
        config = bucket.client.get_bucket_lifecycle(bucket.name)
    rules = [rule for rule in (config.rules if config else []) if rule.status == ENABLED]
    return [
        f"lifecycle rule {rule.rule_id or '(without a name)'} {text}"
        for rule in rules
        for is_so, text in _RULES
        if is_so(rule)
    ]


_RULES: Final[list[tuple[Callable[[Rule], bool], str]]] = [
    (
        lambda rule: bool(rule.expiration and (rule.expiration.days or rule.expiration.date)),
        "expires objects: it will delete blobs that images need",
    ),
    (
        lambda rule: rule.transition is not None,
        "moves objects to another class: they may not be readable at once",
    ),
    (
        lambda rule: (
            rule.abort_incomplete_multipart_upload is not None
            and (rule.abort_incomplete_multipart_upload.days_after_initiation or 0) < _OLD_UPLOADS
        ),
        f"ends multipart uploads that are younger than {_OLD_UPLOADS} days: uploads under way may be lost",
    ),
]
