"""The authorization policy: pure functions from facts to a decision, without queries, settings or time."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from registry_control.identity.permission_sets import PermissionSet


class Action(StrEnum):
    """What a caller requests. Only `pull` can be public; `view` means reading by the management API."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    VIEW = "view"
    ADMINISTER = "administer"


class Role(IntEnum):
    """The role of a principal on a namespace; a higher role has all rights of the lower ones."""

    NONE = 0
    READER = 1
    WRITER = 2
    ADMIN = 3


class Visibility(StrEnum):
    """The visibility of an image; `inherit` means that of its namespace."""

    INHERIT = "inherit"
    PUBLIC = "public"
    PRIVATE = "private"


class Kind(StrEnum):
    """The kind of a principal."""

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
        PermissionSet.READ_ONLY: Role.READER,
        PermissionSet.PUSH: Role.WRITER,
        PermissionSet.FULL_ACCESS: Role.ADMIN,
    }
)


@dataclass(frozen=True, slots=True)
class Right:
    """A permission set on one project, or (None) on every project of the principal's organization."""

    permission_set: str
    project_id: UUID | None


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller with its current rights."""

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
        """Kind and id as one string, which identifies the principal in logs and rate limits."""
        return f"{self.kind}:{self.id}"


ANONYMOUS: Final = Principal(Kind.ANONYMOUS, None, "anonymous", None, None, "", ())


@dataclass(frozen=True, slots=True)
class NamespaceFacts:
    """The attributes of a namespace that the policy uses."""

    project_id: UUID
    organization_id: UUID
    owner_id: UUID | None
    is_public: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of `decide`."""

    role: Role
    namespace_is_public: bool
    image: Visibility


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of `decide`; the reason appears in logs and, if denied, in the response."""

    allowed: bool
    reason: str


def role_of(principal: Principal, namespace: NamespaceFacts | None) -> Role:
    """The highest role of the principal on a namespace; NONE if the namespace does not exist."""
    if namespace is None or principal.id is None or principal.organization_id != namespace.organization_id:
        return Role.NONE
    if principal.id == namespace.owner_id:
        return Role.ADMIN
    return role_on_project(principal, namespace.project_id)


def role_on_project(principal: Principal, project_id: UUID) -> Role:
    """The highest role on a project, which must belong to the principal's organization."""
    return _highest(right for right in principal.rights if right.project_id in (None, project_id))


def _highest(rights: Iterable[Right]) -> Role:
    roles = (ROLE_OF_PERMISSION_SET.get(right.permission_set, Role.NONE) for right in rights)
    return max(roles, default=Role.NONE)


def may_operate(principal: Principal, *, organization_operates: bool) -> bool:
    """Whether the principal may see and start work that concerns the whole installation.

    `organization_operates` says whether its organization operates the installation: elsewhere the permission
    set has no effect, because any administrator of a tenant could grant it.
    """
    return organization_operates and Right(PermissionSet.OPERATOR, None) in principal.rights


def facts_for(principal: Principal, namespace: NamespaceFacts | None, image: Visibility | None) -> Facts:
    """The input of `decide`.

    A missing image counts as private: callers who may not see a private image must not be able to distinguish
    it from a missing one, not even in a public namespace (invariant 9).
    """
    return Facts(
        role=role_of(principal, namespace),
        namespace_is_public=namespace is not None and namespace.is_public,
        image=image if image is not None else Visibility.PRIVATE,
    )


def is_public(facts: Facts) -> bool:
    """Whether everyone may pull: the visibility of an image overrides that of its namespace."""
    return facts.image is Visibility.PUBLIC or (
        facts.image is Visibility.INHERIT and facts.namespace_is_public
    )


def decide(action: Action, facts: Facts) -> Decision:
    """Decide whether an action is allowed; by default it is denied."""
    if action is Action.PULL and is_public(facts):
        return Decision(True, "the image is public")
    if facts.role >= NEEDS[action]:
        return Decision(True, f"{facts.role.name.lower()} may {action}")
    return Decision(False, f"{action} needs the role {NEEDS[action].name.lower()}")
