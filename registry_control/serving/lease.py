"""A lease in the database: at most one process holds the lease of a name.

All times are the database's, so clocks of nodes may differ. A row and not an advisory lock of PostgreSQL,
because a connection pooler may give the session of a lock to another client, and SQLite has none (ADR 38).
"""

import os
import socket
import time
from datetime import timedelta
from uuid import uuid4

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from registry_control.serving.models import LeaderLease


class Lease:
    """One process's view of a lease. It renews when a third of the duration has passed."""

    def __init__(self, name: str, *, duration: float) -> None:
        """`duration` is in seconds; after a crash of the holder, others wait at most that long."""
        self._name = name
        self._owner = f"{socket.gethostname()} {os.getpid()} {uuid4().hex}"
        self._duration = duration
        self._renew_at = 0.0

    def hold(self) -> bool:
        """Acquire or renew the lease. Returns whether this process holds it for another two thirds of it.

        Raises:
            django.db.Error: the database does not respond; the caller must assume that it has lost the lease.
        """
        started = time.monotonic()
        if started < self._renew_at:
            return True
        if not self._update():
            self._insert_expired()
            if not self._update():
                self._renew_at = 0.0
                return False
        self._renew_at = started + self._duration / 3
        return True

    def release(self) -> None:
        """Let another process acquire it at once, if this one holds it."""
        if not self._renew_at:
            return
        self._renew_at = 0.0
        with transaction.atomic():
            LeaderLease.objects.filter(name=self._name, owner=self._owner).update(expires_at=Now())

    def _update(self) -> bool:
        own_or_expired = Q(owner=self._owner) | Q(expires_at__lte=Now())
        with transaction.atomic():
            # One statement: PostgreSQL checks the condition again after it has waited for the row's lock.
            changed = LeaderLease.objects.filter(own_or_expired, name=self._name).update(
                owner=self._owner, expires_at=Now() + timedelta(seconds=self._duration)
            )
        return changed == 1

    def _insert_expired(self) -> None:
        if not LeaderLease.objects.filter(name=self._name).exists():
            row = LeaderLease(name=self._name, owner="", expires_at=Now())
            LeaderLease.objects.bulk_create([row], ignore_conflicts=True)
