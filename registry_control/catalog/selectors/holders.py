"""Which images have a blob."""

from itertools import chain
from typing import Final
from uuid import UUID

from registry_control.catalog.models import BlobLease, BlobLink
from registry_control.common.clock import now

# Looking further would cost more than sending the blob; a client may always name the source itself.
_LOOKED_AT: Final = 20


def images_with(blob_id: int, *, organization_id: UUID) -> list[tuple[str, str]]:
    """Namespace and name of some images of an organization that have a blob, by link or by lease."""
    links = BlobLink.objects.filter(blob=blob_id, image__namespace__project__organization=organization_id)
    leases = BlobLease.objects.filter(
        blob=blob_id, image__namespace__project__organization=organization_id, expires_at__gt=now()
    )
    names = ("image__namespace__name", "image__name")
    found = chain(links.values_list(*names).distinct()[:_LOOKED_AT], leases.values_list(*names)[:_LOOKED_AT])
    return list(dict.fromkeys(found))
