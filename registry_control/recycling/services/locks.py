"""The locks of a restore and of a purge, in the order of invariant 11."""

from dataclasses import dataclass
from uuid import UUID

from registry_control.catalog.models import Image
from registry_control.common.errors import NotFound
from registry_control.namespaces.models import Namespace, RecycleBinEntry


@dataclass(frozen=True, slots=True)
class Locked:
    """An entry with its namespace and the images that its kind concerns; all these rows are locked."""

    entry: RecycleBinEntry
    namespace: Namespace
    image: Image | None  # the one that was deleted, or from which something was deleted
    keeper: Image | None  # the one in status `recycled` that keeps what was deleted


def lock(entry_id: UUID) -> Locked:
    """Lock an entry and what a restore of it changes.

    The entry comes last: of two transactions that restore or purge it, the second finds no entry any more.

    Raises:
        NotFound: there is no such entry, or not any more.
    """
    found = RecycleBinEntry.objects.filter(pk=entry_id).first()
    if found is None:
        raise NotFound("entry", entry_id)
    # `no_key`: a deletion, which holds an image, references the namespace's row in its entry.
    unlocked = Namespace.objects.select_related("project").select_for_update(of=("self",), no_key=True)
    namespace = unlocked.get(pk=found.namespace_id)
    wanted = [each for each in (found.image_id, found.row_id) if each is not None]
    images = Image.objects.select_related("namespace__project").select_for_update(of=("self",))
    locked: dict[UUID | None, Image] = {
        image.pk: image for image in images.filter(pk__in=wanted).order_by("pk")
    }
    entry = RecycleBinEntry.objects.select_for_update().filter(pk=entry_id).first()
    if entry is None:
        raise NotFound("entry", entry_id)
    return Locked(entry, namespace, locked.get(found.image_id), locked.get(found.row_id))
