"""Enforces the retention of namespaces (ADR 62).

A pass over the images of a namespace begins when its retention is stored, and then every hour. Workers take
it in slices of some seconds, claimed by the row of the pass, so that no namespace keeps the others waiting.
A killed worker's claim ends after some minutes; another one then repeats its slice: what was removed is gone,
and the rest is decided again.

Every removal is a transaction of its own over some rows of one image. It locks the image's row, shares the
row of the retention, so that a `PUT` waits for it and nothing is removed by old rules afterwards, and decides
again: a push, a pull or a deletion since the plan was made is taken into account.
"""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import Q, QuerySet
from psycopg.errors import LockNotAvailable

from registry_control.audit.services import SYSTEM
from registry_control.catalog.errors import ImageNotFound, ImageReadOnly
from registry_control.catalog.models import Image, Manifest
from registry_control.catalog.services import images, manifests, tags
from registry_control.catalog.services.tags import DoomedTag
from registry_control.common import clock_watch
from registry_control.common.background import is_stopping
from registry_control.common.clock import database_now
from registry_control.common.models import DELETED, Status
from registry_control.db.sql import batches, id_parameter, rows, time_parameter
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import NOTHING, ImageRules, Policy, Times
from registry_control.gc.selectors import retained
from registry_control.gc.selectors.retained import Days, ImageRow, Position, TagRow
from registry_control.gc.selectors.retention import policy_in
from registry_control.gc.services.retention import INTERVAL
from registry_control.namespaces.models import Namespace, Retention

logger = logging.getLogger(__name__)

_CLAIM: Final = timedelta(minutes=5)
_TAGS_AT_ONCE: Final = 100  # in one transaction
_MANIFESTS_AT_ONCE: Final = 50
_MAX_SKIPPED: Final = 20  # sentences in the report of a pass


_SHARE_POLICY: Final = """
SELECT namespace_id FROM namespaces_retention WHERE namespace_id = %s AND updated_at = %s FOR SHARE
"""


class _Superseded(Exception):
    """The retention was changed, or another worker has the claim: this slice ends."""


@dataclass
class _Slice:
    """The work on a pass by one worker until `ends_at` (monotonic)."""

    run: RetentionRun
    namespace: Namespace
    policy: Policy
    stored_at: datetime  # of the policy
    began_at: datetime  # by the clock of the database
    ends_at: float
    tags: int = 0
    manifests: int = 0
    skipped: list[str] = field(default_factory=list)

    def must_end(self) -> bool:
        return is_stopping() or time.monotonic() > self.ends_at

    def rules_for(self, image: ImageRow | Image) -> ImageRules:
        return ImageRules(self.policy, image.name, self._times(image))

    def days_for(self, image: ImageRow | Image) -> Days:
        return Days(self.policy.untagged_days or 0, self._times(image))

    def _times(self, image: ImageRow | Image) -> Times:
        namespace = image.namespace if isinstance(image, Image) else self.namespace
        return retained.times_of(namespace, image.restored_at, now=self.began_at)

    def skip(self, sentence: str) -> None:
        logger.warning("retention of %s: %s", self.namespace, sentence)
        if sentence not in self.skipped and len(self.skipped) < _MAX_SKIPPED:
            self.skipped.append(sentence)


def enforce(*, seconds: float) -> bool:
    """Work on the pass that is due for the longest time, for some seconds. Returns whether one was due."""
    run = _claim()
    if run is None:
        return False
    slice_ = _begin(run, seconds)
    if slice_ is None:
        return True
    try:
        is_over = _work(slice_)
    except _Superseded:
        _own(run).update(claim=None, claimed_until=None)
        return True
    if is_over:
        _finish(run, slice_)
    else:
        _pause(run, slice_)
    return True


def _due() -> Q:
    """Passes and slices that are due. One that is due later than in an hour was planned by a wrong clock."""
    moment = database_now()
    is_due = Q(due_at__lte=moment) | Q(due_at__gt=moment + 2 * INTERVAL)
    is_claimed = Q(claimed_until__gt=moment, claimed_until__lte=moment + 2 * _CLAIM)
    return is_due & (Q(claimed_until__isnull=True) | ~is_claimed)


def _claim() -> RetentionRun | None:
    """Claim the pass that is due for the longest time, and begin a new one if the last is finished."""
    if not RetentionRun.objects.filter(_due()).exists():  # without the write lock of a transaction on SQLite
        return None
    with transaction.atomic():
        found = RetentionRun.objects.select_for_update(skip_locked=True).filter(_due())
        run = found.order_by("due_at", "pk").first()
        if run is None:
            return None
        moment = database_now()
        run.claim, run.claimed_until = uuid4(), moment + _CLAIM
        if run.started_at is None or run.finished_at is not None:
            run.started_at, run.finished_at = moment, None
            run.tags, run.manifests, run.skipped, run.cursor = 0, 0, [], {}
        run.save()
        return run


def _begin(run: RetentionRun, seconds: float) -> _Slice | None:
    """None if there is nothing to enforce: the pass is over."""
    row = Retention.objects.select_related("namespace__project").filter(pk=run.pk).first()
    policy = NOTHING if row is None else policy_in(row)
    if row is None or not policy.removes:
        _own(run).delete()
        return None
    ends_at = time.monotonic() + seconds
    slice_ = _Slice(run, row.namespace, policy, row.updated_at, database_now(), ends_at)
    if row.namespace.status in DELETED:
        _finish(run, slice_)  # it may be restored from the recycle bin
        return None
    longest = max(policy.longest, settings.RECYCLE_BIN)  # which is how long restored content stays
    if held := clock_watch.check(longest=longest).reason:
        slice_.skip(held)
        _finish(run, slice_)
        return None
    return slice_


def _finish(run: RetentionRun, slice_: _Slice) -> None:
    """End the pass; the next one is due an hour after this one began."""
    moment = database_now()
    due_at = max(moment, min(run.started_at or moment, moment) + INTERVAL)
    _save(run, slice_, cursor={}, due_at=due_at, finished_at=moment)
    if run.tags or run.manifests or run.skipped:
        logger.info(
            "retention of %s removed %d tags and %d manifests", slice_.namespace, run.tags, run.manifests
        )


def _pause(run: RetentionRun, slice_: _Slice) -> None:
    """Give the pass back, behind all others that are due."""
    _save(run, slice_, cursor=run.cursor, due_at=database_now(), finished_at=None)


def _save(
    run: RetentionRun,
    slice_: _Slice,
    *,
    cursor: dict[str, str],
    due_at: datetime,
    finished_at: datetime | None,
) -> None:
    run.tags += slice_.tags
    run.manifests += slice_.manifests
    run.skipped = [*dict.fromkeys([*run.skipped, *slice_.skipped])][:_MAX_SKIPPED]
    _own(run).update(
        claim=None,
        claimed_until=None,
        cursor=cursor,
        due_at=due_at,
        finished_at=finished_at,
        tags=run.tags,
        manifests=run.manifests,
        skipped=run.skipped,
    )


def _own(run: RetentionRun) -> QuerySet[RetentionRun]:
    """The row, as long as this worker has the claim."""
    return RetentionRun.objects.filter(pk=run.pk, claim=run.claim)


def _work(slice_: _Slice) -> bool:
    """Work on the images from the cursor on; whether the last one is done.

    Raises:
        _Superseded: the retention was changed.
    """
    cursor = slice_.run.cursor
    if slice_.namespace.status == Status.LOCKED:
        slice_.skip(f"{slice_.namespace} is locked by an administrator")
        return True
    for image in retained.images_of(slice_.namespace.pk, after=cursor.get("done", "")):
        at = cursor if cursor.get("image") == image.name else {}
        step = _work_on(slice_, image, at)
        if step:
            slice_.run.cursor = {**cursor, "image": image.name, **step}
            return False
        cursor = {"done": image.name}
        if slice_.must_end():
            slice_.run.cursor = cursor
            return False
    return True


def _work_on(slice_: _Slice, image: ImageRow, cursor: dict[str, str]) -> dict[str, str]:
    """Work on an image from a cursor on; where to continue, empty at the end."""
    name = f"{slice_.namespace.name}/{image.name}"
    if image.status == Status.LOCKED:
        slice_.skip(f"{name} is locked by an administrator")
        return {}
    try:
        if "manifest" not in cursor and (step := _remove_tags(slice_, image, after=cursor.get("tag", ""))):
            return step
        return _remove_untagged(slice_, image, after=_position(cursor))
    except ImageReadOnly:
        slice_.skip(f"{name} is locked by an administrator")
    except ImageNotFound:
        pass  # it was deleted meanwhile
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        slice_.skip(f"{name} was in use for too long, and is left for the next pass")
    return {}


def _remove_tags(slice_: _Slice, image: ImageRow, *, after: str) -> dict[str, str]:
    """Remove the tags of an image that the rules do not keep; where to continue, empty at the end."""
    rules = slice_.rules_for(image)
    if not rules:
        return {}
    began = time.monotonic()
    newest = retained.newest_tags(image.id, rules)
    slice_.ends_at += time.monotonic() - began  # for a giant image, planning may take longer than a slice
    for page in retained.tag_pages(image.id, after=after):
        going = [row for row in page if not retained.decide(rules, row, newest).keep]
        for batch in batches(going, _TAGS_AT_ONCE):
            if not _remove_batch(slice_, image, batch, newest):
                # A newest tag was deleted: others take its place. The next pass decides about this batch.
                newest = retained.newest_tags(image.id, rules)
            if slice_.must_end():
                return {"tag": after}
        after = page[-1].tag.name
        if slice_.must_end():
            return {"tag": after}
    return {}


@transaction.atomic
def _remove_batch(
    slice_: _Slice, row: ImageRow, batch: Sequence[TagRow], newest: dict[int, frozenset[str]]
) -> bool:
    """Remove tags unless something has changed; False if one of the newest tags of a rule is gone."""
    image = images.get_for_update(row.id)
    _require_policy(slice_)
    rules = slice_.rules_for(image)
    planned = {each.id: each for each in batch}
    concerned = {rules.rule_for(each.tag.name) for each in batch}
    if not all(retained.have_all(row.id, names) for number, names in newest.items() if number in concerned):
        return False
    doomed = []
    for current in retained.tags_by_id(list(planned)):
        decision = retained.decide(rules, current, newest)
        is_moved = current.tag.tagged_at != planned[current.id].tag.tagged_at
        if not decision.keep and not is_moved:
            doomed.append(DoomedTag(current.id, current.tag.name, current.manifest_id, decision.rule))
    if doomed:
        tags.untag_locked(image, doomed, actor=SYSTEM)
        slice_.tags += len(doomed)
    return True


def _remove_untagged(slice_: _Slice, image: ImageRow, *, after: Position) -> dict[str, str]:
    """Remove the untagged manifests of an image whose time is over; where to continue, empty at the end."""
    if slice_.policy.untagged_days is None:
        return {}
    if image.is_stale:
        slice_.skip(f"{slice_.namespace.name}/{image.name} is being recounted, and is left for the next pass")
        return {}
    for page, position in retained.untagged_pages(image.id, after=after):
        for batch in batches(retained.doomed(page, slice_.days_for(image)), _MANIFESTS_AT_ONCE):
            while batch:
                batch = _remove_some(slice_, image, batch)
                if slice_.must_end():
                    return {"manifest": _encoded(after)}
        after = position
        if slice_.must_end():
            return {"manifest": _encoded(after)}
    return {}


@transaction.atomic
def _remove_some(slice_: _Slice, row: ImageRow, planned: Sequence[int]) -> Sequence[int]:
    """Remove manifests with all that must go before them, or some of that; returns those that are left."""
    image = images.get_for_update(row.id)
    _require_policy(slice_)
    days = slice_.days_for(image)
    going = [] if image.size_is_stale else retained.doomed(planned, days)
    if not going:
        return []
    together = _with_requirements(going, days)
    doomed = Manifest.objects.defer("payload").select_for_update().filter(pk__in=together, image=image)
    found = list(doomed.order_by("digest"))
    manifests.delete_locked(image, found, actor=SYSTEM)
    slice_.manifests += len(found)
    return [id_ for id_ in going if id_ not in together]


def _with_requirements(ids: Collection[int], days: Days) -> set[int]:
    """Manifests that go, with the indexes that list them and their referrers, which must not go later.

    If these are too many for one transaction, some of them with all that must go before them.
    """
    found, level = set(ids), set(ids)
    while level:
        room = 2 * _MANIFESTS_AT_ONCE - len(found)
        required = retained.required_before(level, days, known=found, limit=room)
        if len(required) > room:
            return _with_requirements(sorted(required)[:_MANIFESTS_AT_ONCE], days)
        found |= required
        level = required
    return found


def _require_policy(slice_: _Slice) -> None:
    """Share the row of the retention until the transaction ends.

    Raises:
        _Superseded: it was changed or deleted since the slice began.
    """
    if not rows(_SHARE_POLICY, [id_parameter(slice_.namespace.pk), time_parameter(slice_.stored_at)]):
        raise _Superseded


def _encoded(position: Position) -> str:
    return f"{position.created_at.isoformat()} {position.id}"


def _position(cursor: dict[str, str]) -> Position:
    """The position that a cursor has, or the beginning."""
    if "manifest" not in cursor:
        return retained.BEGIN
    created_at, _, manifest_id = cursor["manifest"].partition(" ")
    return Position(datetime.fromisoformat(created_at), int(manifest_id))
