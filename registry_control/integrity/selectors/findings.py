"""What scrubbing and reconciling know of bytes that no blob counts, and of blobs without content."""

from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce

from registry_control.common.findings import Finding, plural
from registry_control.integrity.models import IS_OPEN, BlobFault, Job, UnknownObject
from registry_data.storage.base import Kind


def findings() -> Iterator[Finding]:
    """Look at unknown and foreign objects, at quarantined blobs, and at whether the comparison works."""
    yield from _unknown()
    yield from _quarantined()
    job = Job.objects.filter(pk=Job.Name.RECONCILE).first()
    if job is not None and (foreign := job.counts.get("foreign", 0)):
        yield Finding(
            "foreign_objects",
            f"{plural(foreign, 'file or folder', 'files and folders')} of other programs in the storage. The"
            " registry never removes them.",
            foreign,
        )
    if not settings.RECONCILE_PERIOD:
        yield Finding(
            "reconcile_off",
            "REGISTRY_RECONCILE_PERIOD is 0: objects that no row knows are neither found nor removed."
            " `manage.py reconcile` looks for them once.",
        )
    elif job is None or (job.finished_at is None and not job.error):
        yield Finding(
            "reconcile_running",
            "The comparison of database and storage has not finished yet; there may be more objects that no"
            " row knows.",
        )
    if job is not None and job.error:
        yield Finding(
            "reconcile_stopped", f"The comparison of database and storage has stopped: {job.error}."
        )


def _unknown() -> Iterator[Finding]:
    multiparts = Q(kind=Kind.UNFINISHED.value)
    found = UnknownObject.objects.aggregate(
        objects=Count("pk", filter=~multiparts),
        bytes=Coalesce(Sum("size", filter=~multiparts), 0),
        multiparts=Count("pk", filter=multiparts),
    )
    grace = int(settings.GC_GRACE.total_seconds())
    if found["objects"]:
        yield Finding(
            "unknown_objects",
            f"{plural(found['objects'], 'object')} of {found['bytes']} bytes in the storage that no row"
            " knows, such as the rest of an upload whose process was killed. Each is removed"
            f" {grace} s after it was found.",
            found["objects"],
            found["bytes"],
        )
    if found["multiparts"]:
        yield Finding(
            "abandoned_multiparts",
            f"{plural(found['multiparts'], 'abandoned multipart upload')} in the bucket; S3 does not tell the"
            f" size. Each is aborted {grace} s after it was found.",
            found["multiparts"],
        )


def _quarantined() -> Iterator[Finding]:
    still_open = BlobFault.objects.filter(IS_OPEN)
    found = {
        kind: (number, size)
        for kind, number, size in still_open.values_list("kind").annotate(Count("pk"), Sum("size"))
    }
    if BlobFault.Kind.MISSING in found:
        number, size = found[BlobFault.Kind.MISSING]
        yield Finding(
            "missing_blobs",
            f"{plural(number, 'blob')} of {size} bytes without content in the storage, counted above. The"
            " next push of each heals it.",
            number,
            size,
        )
    if BlobFault.Kind.DAMAGED in found:
        number, size = found[BlobFault.Kind.DAMAGED]
        yield Finding(
            "damaged_blobs",
            f"{plural(number, 'blob')} of {size} bytes with damaged content, counted above. It stays until a"
            " push heals the blob or the images are deleted.",
            number,
            size,
        )
