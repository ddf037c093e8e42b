"""Keeps the claims of this process alive, and tells its threads when to stop (ADR 55).

One thread renews the claims every few seconds, also while a transfer waits for the network, and looks twice a
second whether an execution was cancelled. It dies with the process, so the claims of a killed worker end.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db import Error as AnyDatabaseError
from django.db import close_old_connections, connections, transaction

from registry_control.common.background import is_stopping
from registry_control.db.functions import DatabaseNow
from registry_control.replication.models import (
    Claimable,
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionStatus,
)
from registry_control.replication.remote import registries

logger = logging.getLogger(__name__)

CLAIM: Final = timedelta(seconds=20)
"""How long a claim lasts without renewal; another worker continues the work of a killed one after that."""

_RENEW: Final = 5.0  # seconds
_POLL: Final = 0.5
_SAFE: Final = 15.0  # seconds without a successful renewal after which a claim counts as lost


class Interrupted(Exception):
    """The thread must stop its work: the claim is released, and the work continues later or elsewhere."""


@dataclass(slots=True)
class Hold:
    """A claim as its thread sees it."""

    model: type[Claimable]
    token: UUID
    execution_id: UUID
    renewed_at: float = field(default_factory=time.monotonic)
    is_over: bool = False  # cancelled, or lost to another worker

    @property
    def must_stop(self) -> bool:
        """Whether the work must stop: cancelled, lost to another worker, or the process is being stopped."""
        return self.is_over or is_stopping() or time.monotonic() - self.renewed_at > _SAFE

    def check(self) -> None:
        """Raise Interrupted if the work must stop. Cheap: called for each piece of a transfer."""
        if self.must_stop:
            raise Interrupted


class Keeper:
    """The holds of one process; its thread starts with the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holds: list[Hold] = []
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._reset)

    @contextmanager
    def holding(self, hold: Hold) -> Iterator[None]:
        """Renew a claim until the end of the block."""
        with self._changed:
            self._holds.append(hold)
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="replication claims", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._holds.remove(hold)

    def _reset(self) -> None:
        """A forked process has no thread, and perhaps a lock that a thread of its parent held."""
        self._changed = threading.Condition()
        self._holds = []
        self._thread = None

    def _run(self) -> None:
        renew_at = time.monotonic() + _RENEW
        while True:
            with self._changed:
                while not self._holds:
                    connections.close_all()
                    self._changed.wait()
                holds = list(self._holds)
            if is_stopping():
                registries.abort()  # threads that transfer stop by themselves, but some wait for a target
            close_old_connections()
            try:
                _stop_cancelled(holds)
                if time.monotonic() >= renew_at:
                    _renew(holds)
                    renew_at = time.monotonic() + _RENEW
            except AnyDatabaseError as error:  # the holds end by themselves if this lasts
                logger.warning("the claims of replication cannot be renewed now: %s", error)
            time.sleep(_POLL)


def _stop_cancelled(holds: list[Hold]) -> None:
    running = Execution.objects.filter(
        pk__in={hold.execution_id for hold in holds}, status=ExecutionStatus.RUNNING
    )
    found = set(running.values_list("pk", flat=True))
    for hold in holds:
        hold.is_over |= hold.execution_id not in found


def _renew(holds: list[Hold]) -> None:
    for model in (Execution, ExecutionImage, ExecutionBlob):
        own = {hold.token: hold for hold in holds if hold.model is model}
        if not own:
            continue
        started = time.monotonic()
        with transaction.atomic():
            claimed = model.objects.filter(claimed_by__in=own)
            claimed.update(claimed_until=DatabaseNow() + CLAIM)
            kept = set(claimed.values_list("claimed_by", flat=True))
        for token, hold in own.items():
            if token in kept:
                hold.renewed_at = started
            else:
                hold.is_over = True


keeper: Final = Keeper()
