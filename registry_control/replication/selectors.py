"""Queries for the targets, rules and executions that a principal may see.

The API finds them only through this module.
"""

from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from registry_control.access.policy import Action, Principal, Role, role_on_project
from registry_control.common.errors import NotFound, PermissionsDenied
from registry_control.common.models import DELETED, Status
from registry_control.identity.permission_sets import PermissionSet
from registry_control.namespaces.models import Namespace
from registry_control.namespaces.selectors import get_visible, may, may_see, visible_to
from registry_control.replication.models import Execution, ExecutionStatus, Rule, Target

_NAMESPACE = "namespace__project"
LIVE_RULE = Q(deleted_at__isnull=True, namespace__isnull=False) & ~Q(namespace__status__in=DELETED)
"""A rule that exists for users; the worker deletes the rows of the others."""


def administers_organization(principal: Principal) -> bool:
    """Whether the principal has full access to its whole organization, which targets need."""
    return principal.organization_id is not None and any(
        right.permission_set == PermissionSet.FULL_ACCESS and right.project_id is None
        for right in principal.rights
    )


def targets_of(principal: Principal, *, name: str | None, organization_id: UUID | None) -> QuerySet[Target]:
    """The targets that the principal may see and that match the filters."""
    if not administers_organization(principal) or organization_id not in (None, principal.organization_id):
        return Target.objects.none()
    found = Target.objects.filter(organization=principal.organization_id)
    return found if name is None else found.filter(name=name)


def get_target(principal: Principal, target_id: UUID, *, lock: bool = False) -> Target:
    """One target; `lock` locks its row.

    Raises:
        NotFound: there is none, or the principal may not know of it.
    """
    found = Target.objects.filter(pk=target_id)
    if lock:
        found = found.select_for_update()
    target = found.first()
    is_seen = administers_organization(principal)
    if target is None or not is_seen or target.organization_id != principal.organization_id:
        raise NotFound("target", target_id)
    return target


def target_for_rule(organization_id: UUID, target_id: UUID) -> Target:
    """A target of the organization that a rule belongs to, locked against its deletion.

    Who administers a namespace may use the targets of the organization, without seeing their credentials.

    Raises:
        NotFound: the organization has no such target.
    """
    found = Target.objects.select_for_update().filter(pk=target_id, organization=organization_id).first()
    if found is None:
        raise NotFound("target", target_id)
    return found


def administered_namespaces(principal: Principal) -> QuerySet[Namespace]:
    """The namespaces that the principal administers; the same rule as `policy.decide`."""
    projects = {
        right.project_id
        for right in principal.rights
        if right.project_id is not None and role_on_project(principal, right.project_id) is Role.ADMIN
    }
    owned = Q(owner_user=principal.id) | Q(owner_application=principal.id)
    seen = visible_to(principal)
    return seen if administers_organization(principal) else seen.filter(owned | Q(project__in=projects))


def rules_of(
    principal: Principal, *, name: str | None, namespace_id: UUID | None, target_id: UUID | None
) -> QuerySet[Rule]:
    """The rules that the principal may see and that match all given filters."""
    wanted = {"name": name, "namespace": namespace_id, "target": target_id}
    given = {field: value for field, value in wanted.items() if value is not None}
    administered = administered_namespaces(principal).values("pk")
    return Rule.objects.filter(LIVE_RULE, namespace__in=administered, **given)


def get_rule(principal: Principal, rule_id: UUID, *, action: str, lock: bool = False) -> Rule:
    """One rule, whose namespace the principal administers; `lock` locks the rule's row.

    Raises:
        NotFound: there is none, or the principal may not know of its namespace.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    found = Rule.objects.select_related(_NAMESPACE, "target").filter(LIVE_RULE, pk=rule_id)
    if lock:
        found = found.select_for_update(of=("self",))
    rule = found.first()
    if rule is None or rule.namespace is None or not may_see(principal, rule.namespace):
        raise NotFound("rule", rule_id)
    if not may(principal, Action.ADMINISTER, rule.namespace):
        raise PermissionsDenied(action, "replication_rule")
    return rule


def get_administered_namespace(principal: Principal, namespace_id: UUID, *, action: str) -> Namespace:
    """A namespace for a new rule; its row is locked against its deletion.

    Raises:
        NotFound: there is none, the principal may not know of it, or it is being deleted.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    namespace = get_visible(principal, namespace_id, lock=True)
    if namespace.status == Status.DELETING:
        raise NotFound("namespace", namespace_id)
    if not may(principal, Action.ADMINISTER, namespace):
        raise PermissionsDenied(action, "replication_rule")
    return namespace


def executions_of(principal: Principal, *, rule_id: UUID | None, status: str | None) -> QuerySet[Execution]:
    """The executions of rules that the principal may see, narrowed by exact filters."""
    wanted = {"rule": rule_id, "status": status}
    given = {field: value for field, value in wanted.items() if value is not None}
    rules = rules_of(principal, name=None, namespace_id=None, target_id=None)
    return Execution.objects.filter(rule__in=rules.values("pk"), **given)


def get_execution(principal: Principal, execution_id: UUID, *, action: str, lock: bool = False) -> Execution:
    """One execution of a rule whose namespace the principal administers; `lock` locks its row.

    Raises:
        NotFound: there is none, or the principal may not know of its namespace.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    found = Execution.objects.filter(pk=execution_id)
    if lock:
        found = found.select_for_update(of=("self",))
    execution = found.first()
    if execution is None:
        raise NotFound("execution", execution_id)
    try:
        execution.rule = get_rule(principal, execution.rule_id, action=action)
    except NotFound as error:
        raise NotFound("execution", execution_id) from error
    return execution


def executions_by_status() -> dict[str, int]:
    """The number of executions of each status; finished ones are kept for a month."""
    found = dict(Execution.objects.values_list("status").annotate(number=Count("pk")))
    return {status.value: found.get(status.value, 0) for status in ExecutionStatus}


def failing_rules() -> int:
    """The number of enabled rules whose last finished execution failed."""
    finished = Execution.objects.filter(rule=OuterRef("pk"), finished_at__isnull=False)
    last = Subquery(finished.order_by("-created_at").values("status")[:1])
    enabled = Rule.objects.filter(LIVE_RULE, enabled=True)
    return enabled.annotate(last=last).filter(last=ExecutionStatus.FAILED).count()
