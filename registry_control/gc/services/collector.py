"""Deletes unreferenced blobs in three steps, each of which can be repeated (ADR 52).

1. In one transaction, lock blobs of the review queue, check their references again, and set the state of the
   unreferenced ones to `deleting`: from its commit on no request finds or links them.
2. Delete their content from the storage, outside of a transaction.
3. In one transaction, delete the rows of the blobs whose content is known to be gone.

A worker may be killed at any line. A blob in state `deleting` stays in the queue, and the next batch repeats
step 2. Its storage key is never used again (invariant 1), so that repeating a deletion cannot hurt a new
upload of the same content. Any number of workers may run: rows that another one has locked are skipped, so
that a batch never waits while it holds locks.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final, NamedTuple

from django.conf import settings
from django.db import transaction

from registry_control.audit.services import SYSTEM, Detail, Target, record_many
from registry_control.common import clock_watch
from registry_control.common.clock import database_now
from registry_control.db.sql import Parameter, execute, placeholders, rows, time_parameter
from registry_control.gc.models import Breaker
from registry_control.gc.policy import Action, Facts, Rules, judge, retry_after, spend
from registry_control.gc.selectors import planner
from registry_control.gc.selectors.breaker import budget_of
from registry_control.gc.selectors.candidates import Candidate, load
from registry_control.gc.services import breaker, inventory, runs
from registry_control.gc.services.claims import claim_rows
from registry_control.gc.services.figures import drop_rows
from registry_data.storage.base import BlobStore, DeletesMany, Key, StorageError

logger = logging.getLogger(__name__)

# Within this time no other worker repeats step 2 for a blob. If it takes longer, two do, which is harmless.
_CLAIM: Final = timedelta(seconds=10)
_MAX_ERROR: Final = 255  # characters
_LOGGED_ERRORS: Final = 3  # of one batch
_INVENTORY_SLICE: Final = 1.0  # seconds
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Excludes every transaction that adds a reference: these share the row or have just inserted it (ADR 30).
_LOCK_BLOBS: Final = "SELECT id FROM catalog_blob WHERE id IN"
_IN_ORDER: Final = "ORDER BY digest FOR UPDATE SKIP LOCKED"
_MARK: Final = "UPDATE catalog_blob SET state = 'deleting' WHERE id IN"
_RETRY_AT: Final = "UPDATE catalog_blobreview SET retry_at = %s WHERE blob_id IN"
_DELETE: Final = "DELETE FROM catalog_blob WHERE id IN"
# Rows that another worker is removing at this moment are left to it: waiting for them could deadlock.
_HOLD: Final = "SELECT blob_id FROM catalog_blobreview WHERE retry_at IS NOT NULL AND blob_id IN"
_SKIP_LOCKED: Final = "ORDER BY blob_id FOR UPDATE SKIP LOCKED"
_POSTPONE: Final = "UPDATE catalog_blobreview SET retry_at = %s, attempts = %s, error = %s WHERE blob_id IN"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call did."""

    claimed: int = 0  # rows of the queue that were looked at
    kept: int = 0  # of them, blobs that turned out to be referenced
    removed: int = 0  # blobs
    bytes: int = 0
    errors: Mapping[Key, StorageError] = field(default_factory=dict)
    is_full: bool = False  # whether there may be more rows to look at now
    stopped: str = ""  # why no more blobs may be marked: the circuit breaker, or a clock that jumped

    @property
    def storage_is_down(self) -> bool:
        """Whether the storage failed for every blob of the batch, and nothing else was done."""
        return bool(self.errors) and not (self.removed or self.kept)


def collect_batch(*, store: BlobStore, rules: Rules, limit: int) -> Batch:
    """Review up to `limit` blobs of the queue, and delete those that can be collected.

    Args:
        store: the storage with the content.
        rules: with `ignore_grace`, failed deletions are repeated at once, too.
        limit: bounds the transactions.
    """
    if not planner.is_due(rules):  # without the write lock of a transaction on SQLite
        return Batch()
    held = clock_watch.check().reason
    may_mark = not held or rules.ignore_grace  # no lease ends while the clock is in doubt
    claim = _claim(rules, limit=limit, may_mark=may_mark)
    if claim.needs_inventory and _take_inventory() and not claim.doomed:
        again = _claim(rules, limit=limit, may_mark=may_mark)
        claim = again._replace(size=claim.size + again.size, kept=claim.kept + again.kept)
    errors = _delete_content([each.key for each in claim.doomed], store)
    removed = _remove([each for each in claim.doomed if each.key not in errors])
    if errors:
        _postpone([each for each in claim.doomed if each.key in errors], errors)
    size = sum(each.size for each in removed)
    stopped = claim.stopped or ("" if may_mark else held)
    return Batch(claim.size, claim.kept, len(removed), size, errors, claim.is_full, stopped)


class _Claim(NamedTuple):
    """The outcome of step 1."""

    size: int  # rows of the queue
    kept: int
    doomed: Sequence[Candidate]  # in state `deleting`
    is_full: bool
    stopped: str = ""  # why no blob may be marked
    needs_inventory: bool = False  # before more blobs may be marked


@transaction.atomic
def _claim(rules: Rules, *, limit: int, may_mark: bool = True) -> _Claim:
    """Step 1: mark the unreferenced blobs of a part of the queue, and claim those marked before.

    The row of the breaker is the first lock, so waiting for it delays no other transaction.
    """
    gate = breaker.lock() if settings.GC_BREAKER else None
    is_stopped = gate is not None and gate.stopped_at is not None
    retries, reviews, is_full = claim_rows(rules, limit=limit, reviews=may_mark and not is_stopped)
    locked = _ids(f"{_LOCK_BLOBS} {placeholders(reviews)} {_IN_ORDER}", reviews) if reviews else []
    # Read after the locks: a transaction that held one may have added a reference.
    candidates = load([*retries, *locked])
    actions = {each.id: judge(each.facts, rules).action for each in candidates}
    collectable = [each for each in candidates if actions[each.id] is Action.COLLECT]
    allowed, needs_inventory = _allowed(gate, collectable)
    doomed = [each for each in candidates if actions[each.id] is Action.DELETE or each.id in allowed]
    _apply(_MARK, [*allowed])
    _apply(_RETRY_AT, [each.id for each in doomed], time_parameter(rules.now + _CLAIM))
    drop_rows(each.id for each in candidates if actions[each.id] is Action.KEEP)
    kept = sum(actions[each.id] is Action.KEEP for each in candidates)
    reason = gate.reason if gate is not None and gate.stopped_at is not None else ""
    is_full = needs_inventory or (is_full and may_mark and not reason)
    return _Claim(len(retries) + len(reviews), kept, doomed, is_full, reason, needs_inventory)


def _allowed(gate: Breaker | None, collectable: Sequence[Candidate]) -> tuple[frozenset[int], bool]:
    """The blobs that the circuit breaker lets go, and whether more may go after an inventory."""
    if gate is None or not collectable:
        return frozenset(each.id for each in collectable), False
    budget = budget_of(gate)
    oldest_first = sorted(collectable, key=lambda each: _since(each.facts))
    spending = spend(budget, ((each.id, each.size, each.facts) for each in oldest_first))
    breaker.count(spending.marked)
    if spending.exceeds and budget.is_fresh:
        breaker.stop(gate, budget)
    return spending.allowed, spending.exceeds and not budget.is_fresh


def _since(facts: Facts) -> datetime:
    return facts.unreferenced_since or _LONG_AGO


def _take_inventory() -> bool:
    """Count the stored bytes for a second at most; returns whether the count is complete."""
    deadline = time.monotonic() + _INVENTORY_SLICE
    while inventory.advance(max_age=timedelta()):
        if time.monotonic() > deadline:
            return False  # the next batch continues
    return True


def _ids(sql: str, parameters: Sequence[Parameter]) -> list[int]:
    return [found for (found,) in rows(sql, parameters)]


def _apply(sql: str, blob_ids: Sequence[int], *values: Parameter) -> None:
    if blob_ids:
        execute(f"{sql} {placeholders(blob_ids)}", [*values, *blob_ids])


def _delete_content(keys: Sequence[Key], store: BlobStore) -> Mapping[Key, StorageError]:
    """Step 2: delete content from the storage; returns an error for each key that may still have some."""
    if isinstance(store, DeletesMany):
        return store.delete_many(keys)
    errors: dict[Key, StorageError] = {}
    for key in keys:
        try:
            store.delete(key)
        except StorageError as error:
            errors[key] = error
    return errors


@transaction.atomic
def _remove(gone: Sequence[Candidate]) -> Sequence[Candidate]:
    """Step 3: delete the rows of blobs whose content is gone; returns those that no other worker deleted."""
    if not gone:
        return []
    ids = [each.id for each in gone]
    locked = set(_ids(f"{_LOCK_BLOBS} {placeholders(ids)} {_IN_ORDER}", ids))
    removed = [each for each in gone if each.id in locked]
    drop_rows(each.id for each in removed)
    _apply(_DELETE, [each.id for each in removed])
    events = [(Target("blob", each.id, each.digest, each.organization_id), _detail(each)) for each in removed]
    record_many(events, actor=SYSTEM, verb="blob.removed")
    if removed:
        runs.count(blobs=len(removed), size=sum(each.size for each in removed))
    return removed


def _detail(removed: Candidate) -> Detail:
    return {"size": removed.size, "cause": removed.cause, "storage_key": removed.key}


@transaction.atomic
def _postpone(failed: Sequence[Candidate], errors: Mapping[Key, StorageError]) -> None:
    """Set the time of the next attempt to delete content that the storage may still have (invariant 7)."""
    moment, ids = database_now(), [each.id for each in failed]
    held = set(_ids(f"{_HOLD} {placeholders(ids)} {_SKIP_LOCKED}", ids))
    failed = [each for each in failed if each.id in held]
    for attempts, group in groupby(sorted(failed, key=_attempts), key=_attempts):
        found = list(group)
        text = str(errors[found[0].key])[:_MAX_ERROR]
        retry_at = time_parameter(moment + retry_after(attempts + 1))
        _apply(_POSTPONE, [each.id for each in found], retry_at, attempts + 1, text)
    for text in sorted({str(error) for error in errors.values()})[:_LOGGED_ERRORS]:
        logger.warning("content of unreferenced blobs cannot be deleted now: %s", text)
        runs.add_error(text)


def _attempts(candidate: Candidate) -> int:
    return candidate.attempts
