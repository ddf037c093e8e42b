"""What must hold of a bucket before anything is kept in it, and what its owner should know."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import uuid4

from minio.commonconfig import ENABLED
from minio.lifecycleconfig import Rule

from registry_data.storage.base import NotStored, StorageError, Unavailable
from registry_data.storage.s3.bucket import Bucket, Changed, translated
from registry_data.storage.s3.process_identity import is_known_dead, this_process

logger = logging.getLogger(__name__)

_OLD_UPLOADS: Final = 7  # days after which nobody goes on with an upload
_PROBES: Final = "check/"
_LONGEST_CHECK: Final = timedelta(hours=1)  # longer than all its requests take that fail at their slowest


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
    _remove_old_probes(bucket)
    _require_conditional_writes(bucket)
    for text in concerns(bucket):
        logger.warning("bucket %s: %s", bucket.name, text)


def _require_conditional_writes(bucket: Bucket) -> None:
    """Two writers of one upload are kept apart by these alone; a store that ignores them would lose bytes."""
    name = f"{_PROBES}{uuid4().hex}"
    body = this_process().encode()
    etag = bucket.put(name, body, only_new=True)
    try:
        for condition in ({"only_new": True}, {"if_match": "0" * len(etag)}):
            try:
                bucket.put(name, body, **condition)
            except Changed:
                continue
            raise Unavailable(
                "this S3 ignores If-Match or If-None-Match in PUT, which the registry relies on"
            )
        bucket.put(name, body, if_match=etag)
    finally:
        with suppress(StorageError):
            bucket.delete(name)


def _remove_old_probes(bucket: Bucket) -> None:
    """Remove what processes left that were killed during their check; who may not list leaves it there."""
    with suppress(StorageError), translated():
        for found in bucket.client.list_objects(bucket.name, prefix=_PROBES):
            name = str(found.object_name)
            with suppress(NotStored):
                probe = bucket.get(name)
                if probe.age > _LONGEST_CHECK or is_known_dead(probe.body.decode(errors="replace")):
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
