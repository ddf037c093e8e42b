"""Inspects a product with its own settings and models.

python -m bench.soak.inside expire     every upload session expires now
python -m bench.soak.inside collected  number of blobs that garbage collection removed
python -m bench.soak.inside leftovers  temporary rows and files, as JSON
python -m bench.soak.inside deadlocks  number of deadlocks that PostgreSQL ended
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import django


def main(verb: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    django.setup()
    verbs = {"collected": _collected, "expire": _expire, "leftovers": _leftovers, "deadlocks": _deadlocks}
    print(json.dumps(verbs[verb]()))


def _expire() -> int:
    from registry_control.catalog.models import UploadSession
    from registry_control.common.clock import now

    return UploadSession.objects.update(expires_at=now())


def _collected() -> int:
    from django.db.models import Sum

    from registry_control.gc.models import GcRun

    return GcRun.objects.aggregate(Sum("blobs"))["blobs__sum"] or 0


def _deadlocks() -> int:
    from django.db import connection

    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def _leftovers() -> dict[str, list[str]]:
    """Temporary rows and files by kind; a healthy product has none after its worker has run."""
    from django.db.models import Exists, OuterRef

    from registry_control.catalog.models import (
        Blob,
        BlobLease,
        BlobLink,
        Image,
        Tag,
        UploadSession,
    )
    from registry_control.common.models import Status
    from registry_control.namespaces.models import RecycleBinEntry

    linked = BlobLink.objects.filter(blob=OuterRef("pk"))
    leased = BlobLease.objects.filter(blob=OuterRef("pk"))
    unreferenced = Blob.objects.filter(~Exists(linked), ~Exists(leased))
    images, tags = (kind.objects.filter(status=Status.DELETING) for kind in (Image, Tag))
    blobs = {_stored_name(key): size for key, size in Blob.objects.values_list("storage_key", "size")}
    stored = dict(_stored())
    return {
        "upload sessions": [str(pk) for pk in UploadSession.objects.values_list("pk", flat=True)],
        "entries of the recycle bin": list(RecycleBinEntry.objects.values_list("name", flat=True)),
        "images being deleted": [str(pk) for pk in images.values_list("pk", flat=True)],
        "tags being deleted": [str(pk) for pk in tags.values_list("pk", flat=True)],
        "blobs without a manifest or a lease": list(unreferenced.values_list("digest", flat=True)),
        "blobs without their bytes": [place for place, size in blobs.items() if stored.get(place) != size],
        "bytes without a blob": [place for place in stored if place not in blobs],
    }


def _stored_name(storage_key: str) -> str:
    """The name of a blob's bytes in the storage."""
    from django.conf import settings

    from registry_data.storage.base import Key
    from registry_data.storage.keys import parse_key
    from registry_data.storage.s3.state import blob_object

    if settings.STORAGE_URL.startswith("s3:"):
        return blob_object(parse_key(Key(storage_key))[1])
    return storage_key


def _stored() -> Iterator[tuple[str, int]]:
    """Everything in the storage by name, with its size in bytes."""
    from django.conf import settings

    url = settings.STORAGE_URL
    if url.startswith("s3:"):
        yield from _in_bucket(url)
        return
    root = Path(unquote(urlsplit(url).path))
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # The worker deletes files meanwhile.
                yield str(path.relative_to(root)), path.lstat().st_size


def _in_bucket(url: str) -> Iterator[tuple[str, int]]:
    from registry_data.storage.s3.address import Address
    from registry_data.storage.s3.bucket import Bucket

    bucket = Bucket(Address.parse(url))
    for found in bucket.client.list_objects(bucket.name, recursive=True):
        yield str(found.object_name), found.size or 0


if __name__ == "__main__":
    main(*sys.argv[1:])
