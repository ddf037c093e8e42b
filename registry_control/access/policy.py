"""Who may do what. No queries, no settings, no clock: facts in, decision out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID


class Action(StrEnum):
    """What a caller wants. Only `pull` can be everyone's; `view` is the management API's reading."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    VIEW = "view"
    ADMINISTER = "administer"


class Role(IntEnum):
    """What a principal is to a namespace; a higher role has all the rights of the lower ones."""

    NONE = 0
    READER = 1
    WRITER = 2
    ADMIN = 3


class Visibility(StrEnum):
    """An image's own privacy policy."""

    INHERIT = "inherit"
    PUBLIC = "public"
    PRIVATE = "private"


class Kind(StrEnum):
    """What kind of principal a caller is."""

    USER = "user"
    APPLICATION = "application"
    ANONYMOUS = "anonymous"


NEEDS: Final[Mapping[Action, Role]] = MappingProxyType(
    {
        Action.PULL: Role.READER,
        Action.VIEW: Role.READER,
        Action.PUSH: Role.WRITER,
        Action.DELETE: Role.ADMIN,
        Action.ADMINISTER: Role.ADMIN,
    }
)

ROLE_OF_PERMISSION_SET: Final[Mapping[str, Role]] = MappingProxyType(
    {
        "ContainerRegistryReadOnly": Role.READER,
        "ContainerRegistryPush": Role.WRITER,
        "ContainerRegistryFullAccess": Role.ADMIN,
    }
)


@dataclass(frozen=True, slots=True)
class Right:
    """A permission set on one project, or (None) on every project of the principal's organization."""

    permission_set: str
    project_id: UUID | None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, with the rights of this moment."""

    kind: Kind
    id: UUID | None
    name: str
    organization_id: UUID | None
    default_project_id: UUID | None
    access_key: str
    rights: tuple[Right, ...]
    ends_at: datetime | None = None  # when the key expires

    @property
    def reference(self) -> str:
        """Kind and id in one text, as logs and rate limits name a principal."""
        return f"{self.kind}:{self.id}"


ANONYMOUS: Final = Principal(Kind.ANONYMOUS, None, "anonymous", None, None, "", ())


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """All of a namespace that a decision may look at."""

    project_id: UUID
    organization_id: UUID
    owner_id: UUID | None
    is_public: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision may look at."""

    role: Role
    namespace_is_public: bool
    image: Visibility


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer and why; the reason goes to logs and, when denied, to the client."""

    allowed: bool
    reason: str


def role_of(principal: Principal, namespace: NamespaceFacts | None) -> Role:
    """The highest role that the principal's rights give on a namespace; none on one that is not there."""
    if namespace is None or principal.id is None or principal.organization_id != namespace.organization_id:
        return Role.NONE
    if principal.id == namespace.owner_id:
        return Role.ADMIN
    return role_on_project(principal, namespace.project_id)


def role_on_project(principal: Principal, project_id: UUID) -> Role:
    """The highest role on a project that must be of the principal's own organization."""
    return _highest(right for right in principal.rights if right.project_id in (None, project_id))


def _highest(rights: Iterable[Right]) -> Role:
    roles = (ROLE_OF_PERMISSION_SET.get(right.permission_set, Role.NONE) for right in rights)
    return max(roles, default=Role.NONE)


def facts_for(principal: Principal, namespace: NamespaceFacts | None, image: Visibility | None) -> Facts:
    """What `decide` needs.

    An image that is not there counts as private: whoever may not see a private image must not be
    able to tell it from a missing one, not even in a public namespace (invariant 9).
    """
    return Facts(
        role=role_of(principal, namespace),
        namespace_is_public=namespace is not None and namespace.is_public,
        image=image if image is not None else Visibility.PRIVATE,
    )


def is_public(facts: Facts) -> bool:
    """Whether anyone may pull: an image's own visibility beats its namespace's."""
    return facts.image is Visibility.PUBLIC or (
        facts.image is Visibility.INHERIT and facts.namespace_is_public
    )


def decide(action: Action, facts: Facts) -> Decision:
    """What no line allows is denied."""
    if action is Action.PULL and is_public(facts):
        return Decision(True, "the image is public")
    if facts.role >= NEEDS[action]:
        return Decision(True, f"{facts.role.name.lower()} may {action}")
    return Decision(False, f"{action} needs the role {NEEDS[action].name.lower()}")
