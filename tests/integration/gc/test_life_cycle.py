"""The whole life cycle of content in any order of events, with kills and faults of the storage at any step.

LIFE_CYCLE_EXAMPLES=5000 runs that many random examples instead of the same few.
"""

import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

import pytest
from django.test import override_settings
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from registry_control.integrity.policy import Content
from registry_data.storage.base import BlobStore, Key
from registry_data.storage.factory import open_store
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import parse_key
from registry_data.storage.s3.address import Address
from registry_data.storage.s3.bucket import Bucket
from registry_data.storage.s3.state import blob_object
from tests.integration.gc.documents import CONTENTS
from tests.integration.gc.installation import LEASE, UPLOAD_LIFE, Place
from tests.integration.gc.machine import LifeCycle
from tests.integration.gc.stepping import clock_of_the_test, stops_at_transactions, without_waits_for_the_disk
from tests.services.minio import S3Server

_EXAMPLES: Final = os.environ.get("LIFE_CYCLE_EXAMPLES")
pytestmark = [pytest.mark.django_db(transaction=True), *([pytest.mark.slow] if _EXAMPLES else [])]


def _run(place: Place, examples: int) -> None:
    profile = hypothesis_settings(
        max_examples=int(_EXAMPLES or examples),
        stateful_step_count=60,
        derandomize=_EXAMPLES is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if _EXAMPLES else [Phase.generate],
    )
    with ExitStack() as stack:
        logging.disable()  # of thousands of injected errors
        stack.callback(logging.disable, logging.NOTSET)
        stack.enter_context(stops_at_transactions())
        stack.enter_context(without_waits_for_the_disk())
        clock = stack.enter_context(clock_of_the_test())
        stack.enter_context(override_settings(BLOB_LEASE=LEASE, UPLOAD_LIFE=UPLOAD_LIFE))
        machine = cast("type[LifeCycle]", lambda: LifeCycle(clock, place))
        run_state_machine_as_test(machine, settings=profile)


@pytest.mark.timeout(0 if _EXAMPLES else 180)
def test_content_stays_exactly_as_long_as_something_refers_to_it(
    store: FilesystemStore, tmp_path: Path
) -> None:
    _run(_on_disk(store, tmp_path / "blobs"), examples=12)


def _on_disk(store: FilesystemStore, root: Path) -> Place:
    encoded = [digest.partition(":")[2] for digest in CONTENTS]
    folders = ["uploads", *(f"blobs/sha256/{each[:2]}" for each in encoded)]
    for shard in root.glob("blobs/*/*"):  # listing hundreds of empty folders takes a tenth of the time
        if str(shard.relative_to(root)) not in folders:
            shard.rmdir()

    def names() -> list[str]:
        return [f"{folder}/{name}" for folder in folders for name in os.listdir(root / folder)]  # noqa: PTH208 - faster

    def clear() -> None:
        for name in names():
            (root / name).unlink()

    def damage(key: str, content: Content) -> None:
        (root / key).unlink() if content is Content.MISSING else (root / key).write_bytes(b"!")

    return Place(store, names, str, clear, damage, lambda name: _write(root / name))


def _write(path: Path) -> None:
    path.write_bytes(b"unknown")


@pytest.mark.timeout(0 if _EXAMPLES else 180)
@pytest.mark.only_on("sqlite")  # the disk shows what depends on the database
@pytest.mark.clients
def test_content_in_an_object_store_stays_exactly_as_long(minio: S3Server) -> None:
    url = minio.url()
    store = open_store(url)
    store.check()
    _run(_in_bucket(store, Bucket(Address.parse(url))), examples=4)


def _in_bucket(store: BlobStore, bucket: Bucket) -> Place:
    def names() -> list[str]:
        return [name for name, _ in bucket.list_objects(after="", limit=1000)]

    def clear() -> None:
        for name in names():
            bucket.delete(name)

    def damage(name: str, content: Content) -> None:
        if content is Content.MISSING:
            bucket.delete(name)
        else:
            bucket.put(name, b"!")

    def leave(name: str) -> None:
        bucket.put(name, b"unknown")

    return Place(store, names, lambda key: blob_object(parse_key(Key(key))[1]), clear, damage, leave)
