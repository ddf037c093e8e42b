"""Queries for namespaces that a principal may see; the API finds namespaces only through this module."""

from typing import Any, Final
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from registry_control.access.policy import (
    ROLE_OF_PERMISSION_SET,
    Action,
    NamespaceFacts,
    Principal,
    Role,
    decide,
    facts_for,
    role_of,
)
from registry_control.common.errors import NotFound
from registry_control.common.models import DELETED, Status
from registry_control.namespaces.models import Namespace

# Counted images were pushed to and are not being deleted. The catalogue app, which depends on this one,
# defines `images`.
_COUNTED: Final = Q(images__pushed_at__isnull=False) & ~Q(images__status__in=DELETED)


def facts_of(namespace: Namespace) -> NamespaceFacts:
    """The facts for an authorization. Select `project` with the namespace, to save a query."""
    return NamespaceFacts(
        project_id=namespace.project_id,
        organization_id=namespace.project.organization_id,
        owner_id=namespace.owner_user_id or namespace.owner_application_id,
        is_public=namespace.is_public,
    )


def may(principal: Principal, action: Action, namespace: Namespace) -> bool:
    """Whether the principal may perform the action on the namespace."""
    return decide(action, facts_for(principal, facts_of(namespace), None)).allowed


def may_see(principal: Principal, namespace: Namespace) -> bool:
    """Whether the principal may know that a namespace and its contents exist."""
    return role_of(principal, facts_of(namespace)) is not Role.NONE


def _places(principal: Principal, role: Role) -> set[UUID | None]:
    """The projects on which the principal has at least this role; None: all projects of its organization."""
    return {
        right.project_id
        for right in principal.rights
        if ROLE_OF_PERMISSION_SET.get(right.permission_set, Role.NONE) >= role
    }


def sees_all(principal: Principal) -> bool:
    """Whether the principal has a role on every project of its organization."""
    return None in _places(principal, Role.READER)


def visible_to(principal: Principal) -> QuerySet[Namespace]:
    """Every namespace on which the principal has any role; the same rule as `policy.role_of`.

    Without those in the recycle bin.
    """
    return known_to(principal).exclude(status=Status.RECYCLED)


def known_to(principal: Principal) -> QuerySet[Namespace]:
    """Every namespace on which the principal has any role, also those in the recycle bin."""
    return _with_role(principal, Role.READER)


def administered_by(principal: Principal) -> QuerySet[Namespace]:
    """Every namespace that the principal may administer, also those in the recycle bin."""
    return _with_role(principal, Role.ADMIN)


def _with_role(principal: Principal, role: Role) -> QuerySet[Namespace]:
    projects = _places(principal, role)
    found = Namespace.objects.select_related("project").filter(
        project__organization=principal.organization_id
    )
    if None in projects:
        return found
    return found.filter(
        Q(owner_user=principal.id) | Q(owner_application=principal.id) | Q(project__in=projects)
    )


def any_recycled(organization_id: UUID | None) -> bool:
    """Whether namespaces of the organization are in the recycle bin."""
    return Namespace.objects.filter(status=Status.RECYCLED, project__organization=organization_id).exists()


def bytes_of(namespace: Namespace) -> int:
    """The size of all content of a namespace that is not in the recycle bin, tagged or not."""
    found: Any = with_usage(Namespace.objects.filter(pk=namespace.pk)).get()
    return int(found.size + found.untagged_size)


def listed(
    principal: Principal, *, name: str | None, project_id: UUID | None, organization_id: UUID | None
) -> QuerySet[Namespace]:
    """The namespaces that the principal may see and that match all given filters, each with its usage."""
    wanted = {"name": name, "project": project_id, "project__organization": organization_id}
    given = {field: value for field, value in wanted.items() if value is not None}
    return with_usage(visible_to(principal).filter(**given))


def with_usage(namespaces: QuerySet[Namespace]) -> QuerySet[Namespace]:
    """Add `image_count`, `size` and `untagged_size` (bytes), computed for the rows that are fetched only."""
    own = Namespace.objects.filter(pk=OuterRef("pk")).order_by().values("pk")
    images = own.annotate(total=Count("images", filter=_COUNTED))
    size = own.annotate(total=Coalesce(Sum("images__size", filter=_COUNTED), 0))
    untagged_size = own.annotate(total=Coalesce(Sum("images__untagged_size", filter=_COUNTED), 0))
    return namespaces.annotate(
        image_count=Subquery(images.values("total")),
        size=Subquery(size.values("total")),
        untagged_size=Subquery(untagged_size.values("total")),
    )


def get_visible(principal: Principal, namespace_id: UUID, *, lock: bool = False) -> Namespace:
    """One namespace with its usage, also while it is being deleted; `lock` locks its row.

    Raises:
        NotFound: there is no such namespace, it is in the recycle bin, or the principal may not know of it.
    """
    found = with_usage(Namespace.objects.select_related("project").filter(pk=namespace_id))
    if lock:
        # `no_key`: a deletion that holds an image references the namespace's row in the recycle bin.
        found = found.select_for_update(of=("self",), no_key=True)
    namespace = found.first()
    if namespace is None or namespace.status == Status.RECYCLED or not may_see(principal, namespace):
        raise NotFound("namespace", namespace_id)
    return namespace
