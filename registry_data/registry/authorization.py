"""Authentication and authorization of the data plane: the first step of every use case."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, TypeVar
from uuid import UUID

from django.conf import settings

from registry_control.access.errors import BadCredentials
from registry_control.access.policy import Action
from registry_control.access.services import Caller, RepositoryFacts, authenticate, authorize
from registry_control.catalog.errors import ImageNotFound
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.resolve import RepositoryRecord
from registry_control.catalog.services import images
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository, check_writable_with
from registry_data.registry.use_case import read_only_error, use_case

_T = TypeVar("_T")

CATALOG_SCOPE: Final = "registry:catalog:*"

# The actions of the scope that a client must request; a push includes reading back (OCI 147).
_SCOPE_ACTIONS: Final = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.DELETE: "delete"}
_WORDS: Final = {Action.PULL: "pull from", Action.PUSH: "push to", Action.DELETE: "delete from"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a request: a secret key, a token, or neither (anonymous)."""

    secret: str | None = None
    token: str | None = None


class AccessDenied(ProtocolError):
    """The caller is not allowed to do this; `challenge` contains the parameters of WWW-Authenticate.

    `challenge=None` means 403: other credentials of the same scheme would not help. Otherwise the status is
    401.
    """

    def __init__(self, code: ErrorCode, message: str | None, challenge: dict[str, str] | None) -> None:
        # Clients request another token only after a 401, whatever the code is.
        super().__init__(code, message, status=None if challenge is None else HTTPStatus.UNAUTHORIZED)
        self.challenge = challenge


def identify(credentials: Credentials, *, scope: str = "", has_started: bool = False) -> Caller:
    """Authenticate the caller; `scope` is for the challenge.

    With `has_started`, the request was authorized before: its token may have expired since (OCI 158).

    Raises:
        AccessDenied: the credentials are invalid, expired or revoked.
    """
    try:
        return authenticate(secret=credentials.secret, token=credentials.token, has_started=has_started)
    except BadCredentials as error:
        challenge = {"scope": scope} if scope else {}
        if credentials.token is not None:
            challenge["error"] = "invalid_token"
        kind = "token" if credentials.token is not None else "secret key"
        message = f"the {kind} is {_reason(error)}: log in again"
        raise AccessDenied(ErrorCode.UNAUTHORIZED, message, challenge) from error


def _reason(error: BadCredentials) -> str:
    return {"expired": "expired", "not_found": "unknown or revoked"}.get(error.reason, "not valid")


def scope_of(repository: Repository, action: Action) -> str:
    """Return the scope that a token needs for an action."""
    return f"repository:{repository}:{_SCOPE_ACTIONS[action]}"


def is_allowed(caller: Caller, action: Action, repository: Repository, facts: RepositoryFacts) -> bool:
    """Whether the caller may do this, for use cases that do not fail otherwise."""
    return authorize(caller, action, str(repository), facts).allowed


def require(
    caller: Caller,
    action: Action,
    repository: Repository,
    record: RepositoryRecord,
    *,
    extra_scope: str = "",
    accepted_actions: Collection[Action] = (),
) -> None:
    """Require the right to an action; forbidden and missing repositories look alike (invariant 9).

    `extra_scope` is added to the scope of the challenge. The token must have one of `accepted_actions`, by
    default the action itself.

    Raises:
        AccessDenied: the principal or the token does not have the right.
        ProtocolError: DENIED because the repository is read-only.
    """
    if authorize(caller, action, str(repository), record.facts, accepted_actions=accepted_actions).allowed:
        if record.read_only and action is not Action.PULL:
            raise read_only_error(str(repository))
        return
    raise _access_denied(caller, action, repository, _join_scopes(repository, action, extra_scope))


def _access_denied(caller: Caller, action: Action, repository: Repository, scope: str) -> AccessDenied:
    if caller.is_anonymous and caller.scopes is None:
        message = f"authentication required to {_WORDS[action]} {repository}: log in to this registry first"
        return AccessDenied(ErrorCode.UNAUTHORIZED, message, {"scope": scope})
    message = (
        f"requested access to the resource is denied: you may not {_WORDS[action]} {repository}, "
        f"or it does not exist; {_advice(caller, action, repository.namespace)}"
    )
    challenge = {"scope": scope, "error": "insufficient_scope"}
    return AccessDenied(ErrorCode.DENIED, message, None if caller.scopes is None else challenge)


def _advice(caller: Caller, action: Action, namespace: str) -> str:
    if caller.is_anonymous:
        return "log in to this registry first"
    if action is Action.PUSH:
        return f"create the namespace {namespace} if there is none, or ask its owner for the right to push"
    return f"ask the owner of the namespace {namespace} for the right"


def require_catalog_access(caller: Caller) -> None:
    """Require a login, and with a token the scope of the catalog.

    Raises:
        AccessDenied: the caller is anonymous, or the token has another scope.
    """
    if caller.is_anonymous and caller.scopes is None:
        message = "authentication required to list repositories: log in to this registry first"
        raise AccessDenied(ErrorCode.UNAUTHORIZED, message, {"scope": CATALOG_SCOPE})
    granted = caller.scopes is None or any(
        scope.type == "registry" and scope.name == "catalog" and "*" in scope.actions
        for scope in caller.scopes
    )
    if not granted:
        message = f"listing repositories is denied: the token was not issued for {CATALOG_SCOPE}"
        raise AccessDenied(ErrorCode.DENIED, message, {"scope": CATALOG_SCOPE, "error": "insufficient_scope"})


def unknown_repository(repository: Repository) -> ProtocolError:
    """Create the error for a repository that does not exist, for callers who would be allowed to read it."""
    return ProtocolError(
        ErrorCode.NAME_UNKNOWN,
        f"this registry has no repository {repository}: nothing was ever pushed to it, or it was deleted",
        name=str(repository),
    )


def _join_scopes(repository: Repository, action: Action, extra_scope: str) -> str:
    return " ".join(filter(None, (scope_of(repository, action), extra_scope)))


@dataclass(frozen=True, slots=True)
class Pusher:
    """A caller who may push to a repository, with the record that the decision was based on."""

    caller: Caller
    repository: Repository
    record: RepositoryRecord


def require_push(credentials: Credentials, repository: Repository) -> Pusher:
    """Require the right to push, before the body is read. Queries the database and changes nothing.

    Raises:
        AccessDenied: the caller may not push.
        ProtocolError: the repository is read-only, or the database does not respond.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PUSH))
        record = resolve.repository(repository.namespace, repository.image)
        require(caller, Action.PUSH, repository, record)
        return Pusher(caller, repository, record)


def image_for_push(pusher: Pusher) -> UUID:
    """Return the image of an authorized push; the first push creates it (OCI 54).

    Raises:
        ProtocolError: NAME_UNKNOWN if the namespace was deleted, NAME_INVALID if the name of a new image is
        too long. CatalogError: the namespace was deleted meanwhile, or is read-only.
    """
    repository, record = pusher.repository, pusher.record
    if record.namespace_id is None:
        raise unknown_repository(repository)
    if record.image_id is not None:
        return record.image_id
    check_writable_with(repository, settings.PUBLIC_HOST)
    return images.get_or_create(
        actor=pusher.caller.actor, namespace_id=record.namespace_id, name=repository.image
    )


def in_image(pusher: Pusher, push: Callable[[UUID], _T]) -> _T:
    """Call a step of a push with its image, and a second time with a new image if that one was removed.

    The worker removes images to which nothing was ever pushed (`deletion.remove_never_pushed`). A client that
    begins a push at that moment must not be refused.

    Raises:
        ProtocolError, CatalogError: as `image_for_push` and the step; ImageNotFound if the new image was
            deleted, too.
    """
    try:
        return push(image_for_push(pusher))
    except ImageNotFound:
        return push(image_for_push(replace(pusher, record=replace(pusher.record, image_id=None))))
