"""The review queue and the runs, for operators of the installation."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import QuerySet, Sum
from django.db.models.functions import Coalesce

from registry_control.access.policy import Principal
from registry_control.access.selectors import require_operator
from registry_control.common.clock import database_now
from registry_control.common.clock_watch import shared_reason
from registry_control.common.errors import NotFound
from registry_control.gc.models import GcRun
from registry_control.gc.policy import Rules
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import stopped_reason
from registry_control.rest.identifiers import parse_id

RESOURCE: Final = "registry_gc"


@dataclass(frozen=True, slots=True)
class Summary:
    """The unreferenced blobs that wait for their deletion."""

    entries: int
    bytes: int
    oldest_due_at: datetime | None
    stopped_by_breaker: bool
    reason: str  # why the collector removes nothing at present; empty if it works


def summary(principal: Principal, *, grace: timedelta) -> Summary:
    """Count the queue.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
    """
    require_operator(principal, "read", RESOURCE)
    return summarize(grace=grace)


def summarize(*, grace: timedelta) -> Summary:
    """Count the queue, for a caller that has been authorized."""
    found = planner.summary(Rules(database_now(), grace))
    dues = [found.next_retry_at, None if found.oldest_since is None else found.oldest_since + grace]
    due_at = min((due for due in dues if due is not None), default=None)
    stopped = stopped_reason()
    return Summary(found.entries, found.bytes, due_at, bool(stopped), stopped or shared_reason())


@dataclass(frozen=True, slots=True)
class Removed:
    """What garbage collection has removed since the installation exists."""

    blobs: int
    bytes: int
    manifests: int


def removed_in_total() -> Removed:
    """Sum up all runs: there is one for each hour, and those that were requested."""
    return Removed(
        **GcRun.objects.filter(dry_run=False).aggregate(
            blobs=Coalesce(Sum("blobs"), 0),
            bytes=Coalesce(Sum("bytes"), 0),
            manifests=Coalesce(Sum("manifests"), 0),
        )
    )


def runs(principal: Principal) -> QuerySet[GcRun]:
    """All runs.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
    """
    require_operator(principal, "read", RESOURCE)
    return GcRun.objects.all()


def get_run(principal: Principal, run_id: str) -> GcRun:
    """One run.

    Raises:
        PermissionsDenied: the principal may not operate the installation.
        NotFound: there is no such run.
    """
    wanted, found = parse_id(run_id), None
    visible = runs(principal)
    if wanted is not None:
        found = visible.filter(pk=wanted).first()
    if found is None:
        raise NotFound("run", run_id)
    return found
