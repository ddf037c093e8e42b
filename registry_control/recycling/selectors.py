"""Queries for the recycle bin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import Coalesce

from registry_control.access.policy import Action, Principal
from registry_control.catalog.models import Image
from registry_control.common.errors import NotFound, PermissionsDenied
from registry_control.common.models import NOT_DELETING, Status
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.namespaces.selectors import administered_by, known_to, may, may_see, visible_to

RESOURCE: Final = "entry"
PERMISSION: Final = "registry_recycle_bin"


def entries_of(principal: Principal, *, namespace_id: UUID | None) -> QuerySet[RecycleBinEntry]:
    """The entries of all namespaces that the principal may administer, or of one of them.

    Raises:
        PermissionsDenied: the principal may see that namespace and not administer it.
    """
    if namespace_id is not None:
        namespace = Namespace.objects.select_related("project").filter(pk=namespace_id).first()
        if namespace is not None and may_see(principal, namespace):
            _require_administration(principal, namespace, "read")
    there = administered_by(principal).exclude(status=Status.DELETING)
    found = RecycleBinEntry.objects.filter(namespace__in=there.order_by().values("pk"))
    return found if namespace_id is None else found.filter(namespace=namespace_id)


def get_entry(principal: Principal, entry_id: UUID, *, action: str) -> RecycleBinEntry:
    """One entry of a namespace that the principal may administer.

    Raises:
        NotFound: there is no such entry, or the principal may not know of it.
        PermissionsDenied: the principal may see its namespace and not administer it.
    """
    entry = RecycleBinEntry.objects.select_related("namespace__project").filter(pk=entry_id).first()
    if entry is None or entry.namespace.status == Status.DELETING or not may_see(principal, entry.namespace):
        raise NotFound(RESOURCE, entry_id)
    _require_administration(principal, entry.namespace, action)
    return entry


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes in the namespaces of an organization that a principal may see."""

    organization_id: UUID | None
    size: int
    untagged_size: int
    recycled_size: int


def usage(principal: Principal) -> Usage:
    """Sum up sizes. A deleted tag adds nothing: its manifest stays in its image, as untagged."""
    there = Image.objects.filter(NOT_DELETING, namespace__in=visible_to(principal).order_by().values("pk"))
    sums = there.aggregate(size=Coalesce(Sum("size"), 0), untagged_size=Coalesce(Sum("untagged_size"), 0))
    known = known_to(principal).exclude(status=Status.DELETING)
    entries = RecycleBinEntry.objects.filter(namespace__in=known.order_by().values("pk"))
    recycled = entries.exclude(kind=RecycleBinEntry.Kind.TAG).aggregate(size=Coalesce(Sum("size"), 0))
    return Usage(principal.organization_id, sums["size"], sums["untagged_size"], recycled["size"])


def _require_administration(principal: Principal, namespace: Namespace, action: str) -> None:
    if not may(principal, Action.ADMINISTER, namespace):
        raise PermissionsDenied(action, PERMISSION)


@dataclass(frozen=True, slots=True)
class Bin:
    """The recycle bin of the whole installation."""

    entries: Mapping[str, int]  # of each kind
    bytes: int


def whole_bin() -> Bin:
    """Count all entries. A deleted tag has no bytes: its manifest stays in its image."""
    kinds = RecycleBinEntry.Kind
    rows = RecycleBinEntry.objects.values_list("kind").annotate(number=Count("pk"), bytes=Sum("size"))
    found = {kind: (number, size) for kind, number, size in rows}
    size = sum(found[kind][1] for kind in found if kind != kinds.TAG)
    return Bin({kind.value: found.get(kind.value, (0, 0))[0] for kind in kinds}, size)
