"""Counts of findings and of the state of background work, for monitoring."""

from typing import NamedTuple

from django.db.models import Count, Q

from registry_control.integrity.models import IS_OPEN, BlobFault, Job


class Faults(NamedTuple):
    """Findings of one kind."""

    open: int
    found: int  # since the installation exists
    healed: int

    @property
    def listed(self) -> int:
        """Those that a report may list."""
        return self.open + self.healed


def faults() -> dict[str, Faults]:
    """Count the findings of each kind."""
    is_healed = Q(healed_at__isnull=False)
    rows = BlobFault.objects.values_list("kind").annotate(
        open=Count("pk", filter=IS_OPEN), found=Count("pk"), healed=Count("pk", filter=is_healed)
    )
    found = {kind: Faults(*counts) for kind, *counts in rows}
    return {kind.value: found.get(kind.value, Faults(0, 0, 0)) for kind in BlobFault.Kind}


def failing_jobs() -> dict[str, bool]:
    """Whether the last slice of each kind of work ended with an error."""
    failing = set(Job.objects.exclude(error="").values_list("name", flat=True))
    return {name.value: name.value in failing for name in Job.Name}
