"""Who calls and whether they may: every use case passes here before it looks at anything."""

from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from uuid import UUID

from django.conf import settings

from registry_control.access.errors import BadCredentials
from registry_control.access.policy import Action
from registry_control.access.services import Caller, RepositoryFacts, authenticate, authorize
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.resolve import RepositoryRecord
from registry_control.catalog.services import images
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import Repository, check_writable_with
from registry_data.registry.use_case import read_only_error, use_case

CATALOG_SCOPE: Final = "registry:catalog:*"

# What a client must ask a token for; pushing includes reading back (checklist 147).
_SCOPE_ACTIONS: Final = {Action.PULL: "pull", Action.PUSH: "pull,push", Action.DELETE: "delete"}
_WORDS: Final = {Action.PULL: "pull from", Action.PUSH: "push to", Action.DELETE: "delete from"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the Authorization header brought: a secret key, a token, or neither."""

    secret: str | None = None
    token: str | None = None


class AccessDenied(ProtocolError):
    """Not allowed as things are; `challenge` holds the parameters that go into WWW-Authenticate.

    Without a challenge, proving to be somebody else in the same way would not help.
    """

    def __init__(self, code: ErrorCode, message: str | None, challenge: dict[str, str] | None) -> None:
        # With a challenge it is a 401 whatever the code: clients look for another token only then.
        super().__init__(code, message, status=None if challenge is None else HTTPStatus.UNAUTHORIZED)
        self.challenge = challenge


def identify(credentials: Credentials, *, scope: str = "") -> Caller:
    """Who calls.

    Raises:
        Refused: the credentials prove nobody, or no longer.
    """
    try:
        return authenticate(secret=credentials.secret, token=credentials.token)
    except BadCredentials as error:
        challenge = {"scope": scope} if scope else {}
        if credentials.token is not None:
            challenge["error"] = "invalid_token"
        kind = "token" if credentials.token is not None else "secret key"
        message = f"the {kind} is {_reason(error)}: log in again"
        raise AccessDenied(ErrorCode.UNAUTHORIZED, message, challenge) from error


def _reason(error: BadCredentials) -> str:
    return {"expired": "expired", "not_found": "unknown or revoked"}.get(error.why, "not valid")


def scope_of(repository: Repository, action: Action) -> str:
    """The scope that a token for this needs."""
    return f"repository:{repository}:{_SCOPE_ACTIONS[action]}"


def is_allowed(caller: Caller, action: Action, repository: Repository, facts: RepositoryFacts) -> bool:
    """Whether the caller may; for uses that have something else to answer when not."""
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
    """Let the caller pass, or answer alike for what is forbidden and for what is not there (invariant 9).

    `also` is a further scope that a client had better ask for at the same time; `by` names the actions
    of a token of which one is enough.

    Raises:
        Refused: with the challenge that tells a client what to ask a token for.
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
    """Let somebody pass; what they see of the catalogue is theirs anyway.

    Raises:
        Refused: nobody, or a token that was asked for something else.
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
    """Build the answer to the name of an image that is not there, for whoever might have read it."""
    return ProtocolError(
        ErrorCode.NAME_UNKNOWN,
        f"this registry has no repository {repository}: nothing was ever pushed to it, or it was deleted",
        name=str(repository),
    )


def _join_scopes(repository: Repository, action: Action, extra_scope: str) -> str:
    return " ".join(filter(None, (scope_of(repository, action), extra_scope)))


@dataclass(frozen=True, slots=True)
class Pusher:
    """Somebody who may push to a repository, and what it was when that was decided."""

    caller: Caller
    repository: Repository
    record: RepositoryRecord


def require_push(credentials: Credentials, repository: Repository) -> Pusher:
    """Let somebody push, before anything of it is read. It asks the database and changes nothing.

    Raises:
        Refused, ProtocolError: not allowed; the database is away.
    """
    with use_case():
        caller = identify(credentials, scope=scope_of(repository, Action.PUSH))
        record = resolve.repository(repository.namespace, repository.image)
        require(caller, Action.PUSH, repository, record)
        return Pusher(caller, repository, record)


def image_for_push(pusher: Pusher) -> UUID:
    """The image that an admitted push goes to, made by the first one (checklist 54).

    Raises:
        ProtocolError, CatalogError: the namespace is gone; a name too long to be written after the host.
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
