"""Uploads: bytes in the storage that no blob counts."""

from typing import NamedTuple

from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce

from registry_control.catalog.models import UploadSession


class Staged(NamedTuple):
    """The sessions of all uploads."""

    open: int  # that a client may continue
    open_bytes: int  # of them, as far as saved in the session; the storage may have more
    closed: int  # whose bytes the worker has yet to remove


def staged() -> Staged:
    """Count all upload sessions. There are as many as clients that upload, and none after a day without."""
    found = UploadSession.objects.aggregate(
        open=Count("pk", filter=Q(is_open=True)),
        bytes=Coalesce(Sum("hashed_size", filter=Q(is_open=True)), 0),
        closed=Count("pk", filter=Q(is_open=False)),
    )
    return Staged(found["open"], found["bytes"], found["closed"])
