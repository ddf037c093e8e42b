"""Starting, cancelling and ending executions. Workers advance them (`replication.engine`)."""

from uuid import UUID

from django.db import transaction

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of
from registry_control.audit.services import Actor, record
from registry_control.audit.services import Target as AuditTarget
from registry_control.common.clock import database_now
from registry_control.replication import selectors
from registry_control.replication.models import (
    UNFINISHED,
    Execution,
    ExecutionStatus,
    Rule,
    Trigger,
)
from registry_control.replication.policy import with_error


def start(rule: Rule, *, trigger: Trigger) -> Execution:
    """Create an execution of a whole rule, whose row is locked.

    An execution of the whole rule that waits to start is returned instead: it would do the same.
    """
    waiting = Execution.objects.filter(rule=rule, status=ExecutionStatus.PENDING, is_partial=False).first()
    return waiting or create(rule, trigger=trigger)


def create(rule: Rule, *, trigger: Trigger, pushed: int | None = None) -> Execution:
    """Create an execution of a rule that is due at once: of the whole rule, or of so many pushed images."""
    moment = database_now()
    return Execution.objects.create(
        rule=rule,
        organization_id=rule.organization_id,
        trigger=trigger,
        is_partial=pushed is not None,
        is_planned=pushed is not None,
        images_total=pushed or 0,
        created_at=moment,
        served_at=moment,
        next_attempt_at=moment,
    )


@transaction.atomic
def cancel(*, principal: Principal, execution_id: UUID) -> Execution:
    """End an execution before it is done; workers stop within a second. A finished one stays as it is.

    Raises:
        NotFound: there is no such execution, or the principal may not know of it.
        PermissionsDenied: the principal may see the namespace and not administer it.
    """
    execution = selectors.get_execution(principal, execution_id, action="cancel", lock=True)
    stop(execution, actor=actor_of(principal))
    return execution


def stop(execution: Execution, *, actor: Actor) -> bool:
    """Cancel an execution whose row is locked; returns False if it has finished."""
    if execution.status not in UNFINISHED:
        return False
    end(execution, status=ExecutionStatus.CANCELLED)
    record(actor=actor, verb="execution.cancel", target=audit_target(execution))
    return True


def cancel_of(rule: Rule, *, reason: str) -> None:
    """Cancel the unfinished executions of a locked rule."""
    unfinished = Execution.objects.select_for_update().filter(rule=rule, status__in=UNFINISHED)
    for execution in unfinished.order_by("pk"):
        execution.errors = with_error(execution.errors, reason)
        end(execution, status=ExecutionStatus.CANCELLED)


def end(execution: Execution, *, status: ExecutionStatus) -> None:
    """Set the final status of an execution whose row is locked."""
    execution.status = status
    execution.finished_at = database_now()
    execution.trouble = ""  # nothing is tried again
    execution.save(update_fields=["status", "finished_at", "errors", "trouble"])


def audit_target(execution: Execution) -> AuditTarget:
    """The execution as the object of an audit row; its name is that of its rule."""
    return AuditTarget("execution", execution.pk, execution.rule.name, execution.organization_id)
