"""Inserts audit rows in the transaction of the change that they record (invariant 10)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from registry_control.audit.models import ActorKind
from registry_control.common.clock import now
from registry_control.common.request_context import request_id
from registry_control.db.sql import id_parameter, insert_many, json_parameter, time_parameter

_INSERT: Final = """
INSERT INTO audit_auditevent (at, organization_id, actor_kind, actor_id, actor_name, verb,
                              target_kind, target_id, target_name, detail, request_id)
VALUES
"""
Detail: TypeAlias = Mapping[str, str | int | bool | None]


@dataclass(frozen=True, slots=True)
class Actor:
    """The principal of a change, as audit rows record it."""

    kind: ActorKind
    id: str
    name: str


SYSTEM: Final = Actor(kind=ActorKind.SYSTEM, id="", name="system")


@dataclass(frozen=True, slots=True)
class Target:
    """The changed object; `kind` is the name of its model in lower case."""

    kind: str
    id: UUID | int | str
    name: str
    organization_id: UUID | None


class Event(NamedTuple):
    """What happened to a target, for example `image.visibility`."""

    verb: str
    target: Target
    detail: Detail


def record(*, actor: Actor, verb: str, target: Target, **detail: str | int | bool | None) -> None:
    """Insert a row: `actor` did `verb`, for example `image.visibility`, to `target`."""
    record_events([Event(verb, target, detail)], actor=actor)


def record_many(events: Iterable[tuple[Target, Detail]], *, actor: Actor, verb: str) -> None:
    """Insert rows of one actor and verb, in as few statements as possible."""
    record_events((Event(verb, target, detail) for target, detail in events), actor=actor)


def record_events(events: Iterable[Event], *, actor: Actor) -> None:
    """Insert rows of one actor, in as few statements as possible."""
    moment, request = time_parameter(now()), request_id()
    insert_many(
        _INSERT,
        (
            [
                moment,
                id_parameter(target.organization_id) if target.organization_id else None,
                actor.kind.value,
                actor.id,
                actor.name,
                verb,
                target.kind,
                str(target.id),
                target.name,
                json_parameter(detail),
                request,
            ]
            for verb, target, detail in events
        ),
    )
