"""Leases of jobs: one worker does each kind of work at a time. A killed one is replaced after a minute."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from django.db import transaction
from django.db.models import Q
from django.db.models.expressions import CombinedExpression

from registry_control.db.functions import DatabaseNow
from registry_control.integrity.models import Job

_LEASE: Final = timedelta(seconds=60)


def lease_end() -> CombinedExpression:
    """The time until which a job is leased from now on, by the clock of the database."""
    return DatabaseNow() + _LEASE


class Held:
    """A job that this process has leased."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def renew(self) -> bool:
        """Extend the lease; False if another worker has taken the job over meanwhile."""
        return self._update(leased_until=lease_end())

    def save(self, **changes: Any) -> bool:
        """Save progress, unless another worker has taken the job over."""
        return self._update(**changes)

    def _update(self, **changes: Any) -> bool:
        with transaction.atomic():
            return Job.objects.filter(pk=self.job.pk, owner=self.job.owner).update(**changes) == 1


@contextmanager
def held(name: Job.Name) -> Iterator[Held | None]:
    """Lease a job for the body, None if another worker has it. All times are the database's."""
    job = _acquire(name)
    if job is None:
        yield None
        return
    lease = Held(job)
    try:
        yield lease
    finally:
        lease.save(leased_until=None)


def _acquire(name: Job.Name) -> Job | None:
    token = uuid4().hex
    if not Job.objects.filter(pk=name).exists():
        Job.objects.bulk_create([Job(name=name)], ignore_conflicts=True)
    free = Q(leased_until__isnull=True) | Q(leased_until__lte=DatabaseNow())
    with transaction.atomic():
        # One statement: PostgreSQL checks the condition again after it has waited for the row's lock.
        if not Job.objects.filter(free, pk=name).update(owner=token, leased_until=lease_end()):
            return None
    return Job.objects.get(pk=name)
