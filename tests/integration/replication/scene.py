"""Targets and rules, and the work of executions, done by the test process itself."""

from collections.abc import Sequence
from typing import Any

from registry_control.common.clock import now
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims, triggers
from registry_control.replication.engine.run import run
from registry_control.replication.models import (
    Direction,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    Rule,
    Target,
)
from registry_control.replication.services import rules, targets
from registry_control.replication.services.rules import DEFAULT_DESTINATION, RuleFields
from tests.factories import TestKey, unique


def make_target(owner: TestKey, url: str, *, username: str = "", password: str = "") -> Target:
    """A target in the owner's organization."""
    return targets.create(
        principal=owner.principal,
        name=unique("target"),
        url=url,
        username=username,
        password=password,
        insecure=False,
    )


def make_rule(
    owner: TestKey,
    namespace: Namespace,
    target: Target,
    direction: Direction = Direction.PUSH,
    *,
    repositories: Sequence[str] = ("*",),
    **fields: Any,
) -> Rule:
    """A rule for a namespace that the owner administers; by default it replicates everything."""
    defaults: dict[str, Any] = {
        "name": unique("rule"),
        "tags": "*",
        "destination": DEFAULT_DESTINATION[direction],
        "on_push": False,
        "cron": "",
        "enabled": True,
    }
    return rules.create(
        principal=owner.principal,
        direction=direction,
        namespace_id=namespace.pk,
        target_id=target.pk,
        fields=RuleFields(repositories=tuple(repositories), **{**defaults, **fields}),
    )


def run_rule(owner: TestKey, rule: Rule) -> Execution:
    """Run a rule by hand, to the end."""
    execution = rules.run(principal=owner.principal, rule_id=rule.pk)
    work_off()
    execution.refresh_from_db()
    return execution


def work_off() -> None:
    """Do all work that is due, as the worker's tasks do it."""
    triggers.start_due(limit=10)
    triggers.start_pushed(limit=10)
    while (work := claims.claim_next()) is not None:
        run(work)


def end_waiting() -> None:
    """Let all back-off be over."""
    for model in (Execution, ExecutionImage, ExecutionBlob):
        model.objects.update(next_attempt_at=now())


def executions_of(rule: Rule) -> list[Execution]:
    """The executions of a rule, oldest first."""
    return list(Execution.objects.filter(rule=rule).order_by("created_at", "pk"))
