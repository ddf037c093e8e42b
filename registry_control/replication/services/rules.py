"""Creating, changing, running and deleting rules: one transaction and one audit row each."""

from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import SYSTEM, Actor, record
from registry_control.audit.services import Target as AuditTarget
from registry_control.common.clock import database_now
from registry_control.common.errors import InvalidArgument
from registry_control.common.models import Status
from registry_control.common.signals import execution_started
from registry_control.namespaces.models import Namespace
from registry_control.replication import policy, selectors
from registry_control.replication.models import Direction, Execution, PushEvent, Rule, Target, Trigger
from registry_control.replication.services import executions

DEFAULT_DESTINATION: Final = {Direction.PUSH: "{namespace}/{image}", Direction.PULL: "{image}"}


@dataclass(frozen=True, slots=True)
class RuleFields:
    """The fields of a rule that can change."""

    name: str
    repositories: tuple[str, ...]
    tags: str
    destination: str
    on_push: bool
    cron: str  # empty: no schedule
    enabled: bool

    @classmethod
    def of(cls, rule: Rule) -> "RuleFields":
        """The present fields of a rule."""
        return cls(
            name=rule.name,
            repositories=tuple(rule.repositories),
            tags=rule.tags,
            destination=rule.destination,
            on_push=rule.on_push,
            cron=rule.cron,
            enabled=rule.enabled,
        )

    def check(self, direction: str) -> None:
        """Check what does not depend on other rows.

        Raises:
            InvalidArgument: a field is malformed, or contradicts the direction.
        """
        policy.check_repositories(self.repositories)
        policy.check_tags(self.tags)
        policy.check_destination(self.destination)
        if self.cron:
            policy.check_cron(self.cron)
        if self.on_push and direction == Direction.PULL:
            raise InvalidArgument(
                "on_push", "only rules that push run on a push; give a rule that pulls a cron schedule"
            )


def create(
    *, principal: Principal, direction: str, namespace_id: UUID, target_id: UUID, fields: RuleFields
) -> Rule:
    """Create a rule for a namespace that the principal administers.

    Raises:
        NotFound: there is no such namespace or target, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
        InvalidArgument: a field is malformed.
    """
    fields.check(direction)
    with transaction.atomic():
        namespace = selectors.get_administered_namespace(principal, namespace_id, action="create")
        target = selectors.target_for_rule(namespace.project.organization_id, target_id)
        return create_for(
            actor=actor_of(principal), direction=direction, namespace=namespace, target=target, fields=fields
        )


@transaction.atomic
def create_for(
    *, actor: Actor, direction: str, namespace: Namespace, target: Target, fields: RuleFields
) -> Rule:
    """Create a rule for an actor whose right to do so has been checked.

    Raises:
        InvalidArgument: a field is malformed, or the target belongs to another organization.
    """
    fields.check(direction)
    if target.organization_id != namespace.project.organization_id:
        raise InvalidArgument("target_id", "the target belongs to another organization", reason="unknown")
    rule = Rule(
        organization_id=namespace.project.organization_id,
        direction=direction,
        namespace=namespace,
        target=target,
    )
    _set(rule, fields)
    rule.save(force_insert=True)
    record(
        actor=actor, verb="rule.create", target=audit_target(rule), namespace=namespace.name, to=target.name
    )
    return rule


def update(
    *, principal: Principal, rule_id: UUID, changes: dict[str, Any], target_id: UUID | None = None
) -> Rule:
    """Change the given fields of a rule; a new schedule counts from now.

    Raises:
        NotFound: there is no such rule or target, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
        InvalidArgument: a field is malformed.
    """
    with transaction.atomic():
        rule = selectors.get_rule(principal, rule_id, action="write", lock=True)
        target = None if target_id is None else selectors.target_for_rule(rule.organization_id, target_id)
        change(rule, actor=actor_of(principal), changes=changes, target=target)
    return rule


def change(rule: Rule, *, actor: Actor, changes: dict[str, Any], target: Target | None = None) -> None:
    """Write fields of a rule whose row is locked.

    Disabling a rule cancels its executions, and it forgets the pushes that it has not replicated yet.

    Raises:
        InvalidArgument: a field is malformed, or the target belongs to another organization.
    """
    if target is not None and target.organization_id != rule.organization_id:
        raise InvalidArgument("target_id", "the target belongs to another organization", reason="unknown")
    before = RuleFields.of(rule)
    fields = replace(before, **changes)
    fields.check(rule.direction)
    names = [name for name in changes if getattr(before, name) != getattr(fields, name)]
    if target is not None and target.pk != rule.target_id:
        rule.target = target
        names.append("target")
    if not names:
        return
    _set(rule, fields, reschedule="cron" in names or "enabled" in names)
    rule.updated_at = database_now()
    rule.save(update_fields=[*names, "next_run_at", "updated_at"])
    if not (rule.enabled and rule.on_push):
        PushEvent.objects.filter(rule=rule).delete()
    if before.enabled and not rule.enabled:
        executions.cancel_of(rule, reason="the rule was disabled")
    record(actor=actor, verb="rule.update", target=audit_target(rule), fields=", ".join(sorted(names)))


def _set(rule: Rule, fields: RuleFields, *, reschedule: bool = True) -> None:
    rule.name, rule.tags, rule.destination = fields.name, fields.tags, fields.destination
    rule.repositories = list(fields.repositories)
    rule.on_push, rule.cron, rule.enabled = fields.on_push, fields.cron, fields.enabled
    if reschedule:
        is_due = fields.enabled and fields.cron
        rule.next_run_at = policy.next_time(fields.cron, after=database_now()) if is_due else None


@transaction.atomic
def delete(*, principal: Principal, rule_id: UUID) -> Rule:
    """Delete a rule with its executions; a running one is cancelled.

    Raises:
        NotFound: there is no such rule, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    rule = selectors.get_rule(principal, rule_id, action="delete", lock=True)
    shown = (rule.target, rule.namespace)
    start_deletion(rule, actor=actor_of(principal))
    rule.target, rule.namespace = shown  # for the response
    return rule


def start_deletion(rule: Rule, *, actor: Actor) -> None:
    """Make a rule, whose row is locked, end: its executions stop, and the worker deletes the rows."""
    if rule.deleted_at is not None:
        return
    record(actor=actor, verb="rule.delete", target=audit_target(rule))
    executions.cancel_of(rule, reason="the rule was deleted")
    rule.target = rule.namespace = None
    rule.deleted_at = database_now()
    rule.next_run_at = None
    rule.save(update_fields=["target", "namespace", "deleted_at", "next_run_at"])


def delete_without_namespace(*, limit: int) -> int:
    """Delete the rules of namespaces that are being deleted or are gone; returns how many."""
    gone = Rule.objects.filter(deleted_at__isnull=True).exclude(
        namespace__in=Namespace.objects.exclude(status=Status.DELETING)
    )
    deleted = 0
    for pk in list(gone.values_list("pk", flat=True)[:limit]):
        with transaction.atomic():
            rule = Rule.objects.select_for_update(skip_locked=True).filter(pk=pk).first()
            if rule is not None:
                start_deletion(rule, actor=SYSTEM)
                deleted += 1
    return deleted


@transaction.atomic
def run(*, principal: Principal, rule_id: UUID) -> Execution:
    """Start an execution of a whole rule, enabled or not; one that waits to start is returned instead.

    Raises:
        NotFound: there is no such rule, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    rule = selectors.get_rule(principal, rule_id, action="run", lock=True)
    return run_by_hand(rule, actor=actor_of(principal))


def run_by_hand(rule: Rule, *, actor: Actor) -> Execution:
    """Start an execution of a rule whose row is locked."""
    execution = executions.start(rule, trigger=Trigger.MANUAL)
    execution_started.send(sender=Execution)
    record(actor=actor, verb="rule.run", target=audit_target(rule), execution=str(execution.pk))
    return execution


def audit_target(rule: Rule) -> AuditTarget:
    """The rule as the object of an audit row."""
    return AuditTarget("rule", rule.pk, rule.name, rule.organization_id)


def actor_of_rule(rule: Rule) -> Actor:
    """The actor of changes that a rule makes in the catalogue: the registry itself, named after the rule."""
    return replace(SYSTEM, id=str(rule.pk), name=f"replication rule {rule.name}"[:255])
