"""Adds audit rows; the caller's transaction holds the change and its row together (invariant 10)."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from registry_control.audit.models import ActorKind, AuditEvent


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, as the audit rows remember it."""

    kind: ActorKind
    id: str
    name: str


SYSTEM: Final = Actor(kind=ActorKind.SYSTEM, id="", name="system")


@dataclass(frozen=True, slots=True)
class Target:
    """What was acted on; `kind` is the model's name in lower case."""

    kind: str
    id: UUID | int | str
    name: str
    organization_id: UUID | None


def record(*, actor: Actor, verb: str, target: Target, **detail: str | int | bool | None) -> None:
    """Remember that `actor` did `verb` (such as `image.visibility`) to `target`."""
    AuditEvent.objects.create(
        organization_id=target.organization_id,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_name=actor.name,
        verb=verb,
        target_kind=target.kind,
        target_id=str(target.id),
        target_name=target.name,
        detail=detail,
    )
