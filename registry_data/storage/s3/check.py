"""Checks of a bucket at the start: required features, and settings that the operator should know about."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import uuid4

from minio.commonconfig import ENABLED
from minio.lifecycleconfig import Rule

from registry_data.storage.base import NotStored, StorageError, Unavailable
from registry_data.storage.s3.bucket import Bucket, Changed, translate_errors
from registry_data.storage.s3.process_identity import is_known_dead, this_process

logger = logging.getLogger(__name__)

_OLD_UPLOADS: Final = 7  # days after which an upload is not expected to be continued
PROBES: Final = "check/"
_LONGEST_CHECK: Final = timedelta(hours=1)  # longer than all its requests with all retries


def prepare(bucket: Bucket) -> None:
    """Create the bucket if it does not exist, and check that it supports conditional writes.

    Raises:
        InsufficientStorage, Unavailable: with a message for the operator.
    """
    if not bucket.exists():
        try:
            with translate_errors():
                bucket.client.make_bucket(bucket.name)
        except StorageError:
            bucket.require_exists()  # succeeds if another process has just created it
    _remove_old_probes(bucket)
    _require_conditional_writes(bucket)
    for text in concerns(bucket):
        logger.warning("bucket %s: %s", bucket.name, text)


def _require_conditional_writes(bucket: Bucket) -> None:
    """Two writers of one upload are excluded by these alone: a store that ignores them would lose bytes."""
    name = f"{PROBES}{uuid4().hex}"
    body = this_process().encode()
    etag = bucket.put(name, body, only_new=True)
    try:
        for condition in ({"only_new": True}, {"if_match": "0" * len(etag)}):
            try:
                bucket.put(name, body, **condition)
            except Changed:
                continue
            raise Unavailable(
                "this S3 server ignores If-Match or If-None-Match in PUT: use a server that supports both"
            )
        bucket.put(name, body, if_match=etag)
    finally:
        with suppress(StorageError):
            bucket.delete(name)


def _remove_old_probes(bucket: Bucket) -> None:
    """Delete probes of processes killed during their check. Without the right to list, they remain."""
    with suppress(StorageError), translate_errors():
        for found in bucket.client.list_objects(bucket.name, prefix=PROBES):
            name = str(found.object_name)
            with suppress(NotStored):
                probe = bucket.get(name)
                if probe.age > _LONGEST_CHECK or is_known_dead(probe.body.decode(errors="replace")):
                    bucket.delete(name)


def concerns(bucket: Bucket) -> list[str]:
    """Settings of the bucket that keep deleted content or delete needed content; one sentence each."""
    found: list[str] = []
    for check in (_versioning, _object_lock, _lifecycle):
        # Not every S3 server has all of these settings, and not every key may read them.
        with suppress(StorageError):
            found += check(bucket)
    return found


def _versioning(bucket: Bucket) -> list[str]:
    with translate_errors():
        status = bucket.client.get_bucket_versioning(bucket.name).status
    if status in (ENABLED, "Suspended"):
        return [f"versioning is {status}: deleted objects stay as old versions and use space"]
    return []


def _object_lock(bucket: Bucket) -> list[str]:
    with translate_errors():
        mode = bucket.client.get_object_lock_config(bucket.name).mode
    return [f"object lock is on ({mode or 'no default'}): retained objects cannot be deleted"]


def _lifecycle(bucket: Bucket) -> list[str]:
    with translate_errors():
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
        "expires objects: it will delete blobs of images",
    ),
    (
        lambda rule: rule.transition is not None,
        "moves objects to another storage class: they may not be readable immediately",
    ),
    (
        lambda rule: (
            rule.abort_incomplete_multipart_upload is not None
            and (rule.abort_incomplete_multipart_upload.days_after_initiation or 0) < _OLD_UPLOADS
        ),
        f"aborts multipart uploads younger than {_OLD_UPLOADS} days: uploads in progress may be lost",
    ),
]
