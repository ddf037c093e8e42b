"""Corrects times of replication that lie in the future after the clock was set back (ADR 66)."""

from datetime import timedelta
from uuid import UUID

from django.db import transaction

from registry_control.common.clock import database_now
from registry_control.common.clock_repair import correct
from registry_control.db.functions import DatabaseNow
from registry_control.replication.engine.keeper import CLAIM
from registry_control.replication.models import Execution, ExecutionBlob, ExecutionImage, Rule
from registry_control.replication.policy import LONGEST_RETRY_AFTER, next_time


def repair() -> None:
    """Let no claim, attempt or schedule wait longer than it would if it had been written now."""
    longest = timedelta(seconds=LONGEST_RETRY_AFTER)
    for model in (Execution, ExecutionImage, ExecutionBlob):
        claimed = model._default_manager.filter(claimed_by__isnull=False)
        correct(claimed, "claimed_until", longest=2 * CLAIM)
        correct(model._default_manager.all(), "next_attempt_at", longest=longest)
    for pk in list(Rule.objects.filter(next_run_at__gt=DatabaseNow()).values_list("pk", flat=True)):
        _reschedule(pk)


@transaction.atomic
def _reschedule(pk: UUID) -> None:
    moment = database_now()
    rule = Rule.objects.select_for_update(skip_locked=True).filter(pk=pk, next_run_at__gt=moment).first()
    if rule is not None and rule.cron:
        rule.next_run_at = next_time(rule.cron, after=moment)
        rule.save(update_fields=["next_run_at"])
