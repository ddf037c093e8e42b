"""Which images have a blob."""

from typing import Final
from uuid import UUID

from registry_control.catalog.models import BlobLink

# Looking further would cost more than sending the blob; a client may always name the source itself.
_LOOKED_AT: Final = 20


def images_with(blob_id: int, *, organization_id: UUID) -> list[tuple[str, str]]:
    """Namespace and name of some images of an organization that link a blob."""
    links = BlobLink.objects.filter(blob=blob_id, image__namespace__project__organization=organization_id)
    names = links.values_list("image__namespace__name", "image__name").distinct()
    return list(names[:_LOOKED_AT])
