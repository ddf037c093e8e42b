"""Records when images, manifests and tags were last pulled (ADR 61).

The times change no response of the data plane and are no change of the content: recording them adds nothing
to the change log or the audit log, and leaves `updated_at` as it is.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from django.db import transaction

from registry_control.common.clock import database_now
from registry_control.db.sql import (
    Rows,
    id_parameter,
    optional_time,
    placeholders,
    rows,
    time_parameter,
    uuid_from_db,
)

FRESH: Final = timedelta(minutes=55)
"""A stored time stays if it is less old than this at the time of a pull: the API promises one hour."""

_TOLERANCE: Final = timedelta(minutes=1)
"""A stored time further in the future comes from a wrong clock; the next pull replaces it."""

_LARGE: Final = 64 * 1024  # bytes of a manifest; SQLite rewrites all of a row to set a column

_STORED: Final = "SELECT id, last_pulled_at, {size} FROM {table} WHERE id IN {ids}"
# Rows that another transaction has locked are skipped: a transaction that never waits for a row takes part in
# no deadlock, neither with pushes and recounts nor with the same statement of another process.
_SET: Final = """
UPDATE {table} SET last_pulled_at = %s WHERE id IN (
    SELECT id FROM {table} WHERE id IN {ids}
    AND (last_pulled_at IS NULL OR last_pulled_at < %s OR last_pulled_at > %s)
    FOR NO KEY UPDATE SKIP LOCKED
) RETURNING id
"""

_RowId: TypeAlias = UUID | int


class Pull(NamedTuple):
    """The rows that a pull concerns; `tag_id` is None if the client asked for a digest."""

    image_id: UUID
    manifest_id: int
    tag_id: UUID | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The outcome of a batch. Each of its pulls is in one of the two."""

    fresh_for: Mapping[Pull, float]
    """For so many seconds from now on, further pulls of the same rows need not be recorded."""

    locked: Collection[Pull]
    """Another transaction had locked a row of these: they must be recorded again."""


def record(ages: Mapping[Pull, float]) -> Recorded:
    """Record pulls that happened so many seconds ago: in one short transaction, large manifests in others.

    The rows of one minute get the time of the latest pull among them, so that one statement sets many rows.
    A row is written only if its time is older than the pull by `FRESH` or more, or in the future: only from
    there it goes backwards.
    """
    clock = database_now()  # which all nodes share
    tags = _Table("catalog_tag", ((pull.tag_id, age) for pull, age in ages.items() if pull.tag_id), clock)
    pulled_manifests = ((pull.manifest_id, age) for pull, age in ages.items())
    manifests = _Table("catalog_manifest", pulled_manifests, clock, size="size")
    images = _Table("catalog_image", ((pull.image_id, age) for pull, age in ages.items()), clock)
    _write([tags, manifests, images])  # images last, because pushes lock these
    due = tags.due.keys() | manifests.due.keys() | images.due.keys()
    stored = tags.stored | manifests.stored | images.stored
    return Recorded(
        fresh_for={pull: _fresh_for(pull, stored, clock) for pull in ages if due.isdisjoint(pull)},
        locked=[pull for pull in ages if not due.isdisjoint(pull)],
    )


def _write(tables: Collection["_Table"]) -> None:
    together = [(table, ids) for table in tables if (ids := table.due.keys() - table.large)]
    alone = [(table, row_id) for table in tables for row_id in table.due.keys() & table.large]
    if together:
        with transaction.atomic():
            for table, ids in together:
                table.write(ids)
    for table, row_id in alone:
        with transaction.atomic():
            table.write([row_id])


class _Table:
    """The rows of one table that were pulled.

    `stored` has the stored times of those that exist, `due` the new times of those that are to be written.
    Those in `large` are written alone.
    """

    def __init__(
        self, name: str, pulled: Iterable[tuple[_RowId, float]], clock: datetime, *, size: str = "0"
    ) -> None:
        """Read the stored times, without locks. `size` is an SQL expression for the bytes of a row."""
        ages: dict[_RowId, float] = {}
        for row_id, age in pulled:
            ages[row_id] = min(age, ages.get(row_id, age))
        self._name, self._clock = name, clock
        self.stored: dict[_RowId, datetime | None] = {}
        self.due: dict[_RowId, datetime] = {}
        self.large: set[_RowId] = set()
        for value, time, size_of_row in _read(name, size, ages):
            row_id, stored = _row_id(value), optional_time(time)
            at = clock - timedelta(seconds=ages[row_id])
            self.stored[row_id] = stored
            if stored is None or stored < at - FRESH or stored > clock + _TOLERANCE:
                self.due[row_id] = at
            if size_of_row > _LARGE:
                self.large.add(row_id)

    def write(self, row_ids: Iterable[_RowId]) -> None:
        """Write the times of some rows that are due; rows that another transaction has locked remain due."""
        in_order = sorted(row_ids, key=self.due.__getitem__)
        for _, group in groupby(in_order, key=lambda row_id: _minute(self.due[row_id])):
            of_minute = list(group)
            at, ids = self.due[of_minute[-1]], list(map(_parameter, of_minute))
            bounds = [time_parameter(at - FRESH), time_parameter(self._clock + _TOLERANCE)]
            sql = _SET.format(table=self._name, ids=placeholders(ids))
            for (row_id,) in rows(sql, [time_parameter(at), *ids, *bounds]):
                self.stored[_row_id(row_id)] = at
                del self.due[_row_id(row_id)]


def _read(table: str, size: str, ids: Collection[_RowId]) -> Rows:
    parameters = list(map(_parameter, ids))
    if not parameters:
        return []
    return rows(_STORED.format(table=table, size=size, ids=placeholders(parameters)), parameters)


def _fresh_for(pull: Pull, stored: Mapping[_RowId, datetime | None], clock: datetime) -> float:
    """Seconds until the oldest time of the pull's rows is no longer fresh; a row may have been deleted."""
    times = [stored.get(row_id) for row_id in pull if row_id is not None]
    oldest = min((at for at in times if at is not None), default=clock)
    return (min(oldest, clock) + FRESH - clock).total_seconds()


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _parameter(row_id: _RowId) -> Any:  # noqa: ANN401 - as registry_control.db.sql declares parameters
    return id_parameter(row_id) if isinstance(row_id, UUID) else row_id


def _row_id(value: str | UUID | int) -> _RowId:
    return value if isinstance(value, int) else uuid_from_db(value)
