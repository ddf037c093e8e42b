"""Finding namespaces that a principal may see; there is no other way to one."""

from uuid import UUID

from django.db.models import Q, QuerySet

from registry_control.access.policy import Action, NamespaceFacts, Principal, Role, decide, facts_for, role_of
from registry_control.common.errors import NotFound
from registry_control.namespaces.models import Namespace


def facts_of(namespace: Namespace) -> NamespaceFacts:
    """What decisions look at. `project` should have been fetched along."""
    return NamespaceFacts(
        project_id=namespace.project_id,
        organization_id=namespace.project.organization_id,
        owner_id=namespace.owner_user_id or namespace.owner_application_id,
        is_public=namespace.is_public,
    )


def may(principal: Principal, action: Action, namespace: Namespace) -> bool:
    """Whether the principal may do this with the namespace itself."""
    return decide(action, facts_for(principal, facts_of(namespace), None)).allowed


def visible_to(principal: Principal) -> QuerySet[Namespace]:
    """Every namespace on which the principal has any role; the same rule as `policy.role_of`."""
    everywhere = any(right.project_id is None for right in principal.rights)
    projects = {right.project_id for right in principal.rights if right.project_id is not None}
    mine = Q(owner_user=principal.id) | Q(owner_application=principal.id) | Q(project__in=projects)
    of_organization = Namespace.objects.select_related("project").filter(
        project__organization=principal.organization_id
    )
    return of_organization if everywhere else of_organization.filter(mine)


def get_visible(principal: Principal, namespace_id: UUID, *, lock: bool = False) -> Namespace:
    """One namespace, deleting ones included; `lock` takes its row for the present transaction.

    Raises:
        NotFound: there is none, or it is not the principal's to know.
    """
    found = Namespace.objects.select_related("project").filter(pk=namespace_id)
    if lock:
        found = found.select_for_update(of=("self",))
    namespace = found.first()
    if namespace is None or role_of(principal, facts_of(namespace)) is Role.NONE:
        raise NotFound("namespace", namespace_id)
    return namespace
