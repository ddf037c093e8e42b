"""Authentication, authorization and tokens, for both planes."""

import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction

from registry_control.access import refresh_tokens, tokens
from registry_control.access.errors import BadCredentials, InvalidRefreshToken, Reason
from registry_control.access.models import SigningKey
from registry_control.access.policy import (
    ANONYMOUS,
    Action,
    Decision,
    Kind,
    NamespaceFacts,
    Principal,
    Visibility,
    decide,
    facts_for,
)
from registry_control.access.selectors import principal_by_access_key, principal_by_secret, stored_hash_of
from registry_control.audit.models import ActorKind
from registry_control.audit.services import SYSTEM, Actor, Target, record
from registry_control.common import request_context
from registry_control.common.clock import now
from registry_control.common.lru_cache import ENTRY_OVERHEAD, LruCache
from registry_control.db.sql import Rows, row
from registry_data.oci.scopes import Scope

SIGNING_KEY_LIFE: Final = timedelta(days=30)
_ACTIONS: Final = (Action.PULL, Action.PUSH, Action.DELETE)
_CATALOG: Final = ("registry", "catalog")
_SIGNING_KEY: Final = "SELECT 1 FROM access_signingkey WHERE kid = %s"
_NEWEST_SIGNING_KEY: Final = "SELECT kid FROM access_signingkey ORDER BY created_at DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """The facts about an image; None if the namespace or the image does not exist."""

    namespace: NamespaceFacts | None
    visibility: Visibility | None


FactsSource = Callable[[str], RepositoryFacts]
"""Finds the facts of a full repository name; implemented by an app above this one."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal and the scopes of its token; None without a token, so that nothing restricts its rights."""

    principal: Principal
    scopes: tuple[Scope, ...] | None
    token_ends_at: float = math.inf  # seconds since the epoch

    @property
    def ends_at(self) -> float:
        """When the key or token expires, in seconds since the epoch."""
        key = self.principal.ends_at
        return self.token_ends_at if key is None else min(self.token_ends_at, key.timestamp())

    @property
    def actor(self) -> Actor:
        """The principal as services and audit rows identify it."""
        return actor_of(self.principal)

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller is anonymous, with or without a token."""
        return self.principal.kind is Kind.ANONYMOUS


_ANONYMOUS_CALLER: Final = Caller(ANONYMOUS, None)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and the other fields of the response to its request."""

    token: str
    scopes: tuple[Scope, ...]
    issued_at: datetime
    expires_in: int  # seconds


def actor_of(principal: Principal) -> Actor:
    """The principal as audit rows record it."""
    return Actor(kind=ActorKind(principal.kind), id=str(principal.id), name=principal.name)


def authenticate(*, secret: str | None = None, token: str | None = None, has_started: bool = False) -> Caller:
    """Identify the caller by its secret key or token, with its current rights. Anonymous without either.

    With `has_started`, the request was authorized before: its token may have expired since (OCI 158).

    Raises:
        BadCredentials: the secret key or token is invalid, unknown or expired.
    """
    if token is not None:
        claims = _verified(token, may_have_expired=has_started)
        principal = principal_by_access_key(claims.access_key) if claims.access_key else ANONYMOUS
        caller = Caller(principal, claims.scopes, claims.expires_at)
    else:
        caller = Caller(principal_by_secret(secret), None) if secret is not None else _ANONYMOUS_CALLER
    if not caller.is_anonymous:
        request_context.identified(caller.principal.reference)
    return caller


def refresh_token_of(caller: Caller) -> str | None:
    """The refresh token of the caller; None if the caller is anonymous.

    It can only be exchanged for tokens, and becomes invalid with its API key.
    """
    access_key = caller.principal.access_key
    stored_hash = stored_hash_of(access_key) if access_key else None
    return None if stored_hash is None else refresh_tokens.make(access_key, stored_hash)


def authenticate_refresh_token(refresh_token: str) -> Caller:
    """Identify the caller by a refresh token, with its current rights.

    Raises:
        InvalidRefreshToken: the token is malformed, its key was deleted or has expired, or the principal is
            inactive.
    """
    access_key = refresh_tokens.access_key_of(refresh_token)
    stored_hash = stored_hash_of(access_key)
    if stored_hash is None:
        raise InvalidRefreshToken(Reason.NOT_FOUND)
    refresh_tokens.check(refresh_token, access_key, stored_hash)
    try:
        return Caller(principal_by_access_key(access_key), None)
    except BadCredentials as error:
        raise InvalidRefreshToken(error.reason) from error


def authorize(
    caller: Caller,
    action: Action,
    repository: str,
    facts: RepositoryFacts,
    *,
    accepted_actions: Collection[Action] = (),
) -> Decision:
    """Decide by the current rights, restricted by the scopes of the caller's token (invariant 5).

    `accepted_actions` are the actions of which the token must have one, by default only `action`.
    """
    decision = decide(action, facts_for(caller.principal, facts.namespace, facts.visibility))
    if (
        decision.allowed
        and caller.scopes is not None
        and not _covers(caller.scopes, repository, accepted_actions or (action,))
    ):
        return Decision(False, f"the token was not issued for {action} on {repository}")
    return decision


def issue_token(caller: Caller, requested: Iterable[Scope], facts_of: FactsSource) -> IssuedToken:
    """Issue a token for the allowed part of the requested scopes, which may be empty (OCI 152)."""
    scopes = tuple(
        Scope(type=scope.type, name=scope.name, actions=granted)
        for scope in requested
        if (granted := _granted(caller, scope, facts_of))
    )
    issued_at = now().replace(microsecond=0)
    life = settings.TOKEN_LIFE
    token = tokens.sign(
        kid=_signing_kid(),
        access_key=caller.principal.access_key,
        subject=f"{caller.principal.kind}:{caller.principal.id}",
        scopes=scopes,
        issued_at=issued_at,
        life=life,
    )
    return IssuedToken(token, scopes, issued_at, int(life.total_seconds()))


def _granted(caller: Caller, scope: Scope, facts_of: FactsSource) -> frozenset[str]:
    if (scope.type, scope.name) == _CATALOG:
        return frozenset({"*"}) & scope.actions if not caller.is_anonymous else frozenset()
    if scope.type != "repository":
        return frozenset()
    requested = [action for action in _ACTIONS if {action, "*"} & scope.actions]
    facts = facts_of(scope.name) if requested else None
    return frozenset(
        action for action in requested if facts and authorize(caller, action, scope.name, facts).allowed
    )


def _covers(scopes: Iterable[Scope], repository: str, actions: Collection[Action]) -> bool:
    return any(
        scope.type == "repository" and scope.name == repository and not scope.actions.isdisjoint(actions)
        for scope in scopes
    )


def _size_of(claims: tokens.Claims) -> int:
    """The approximate memory of a cached token and its claims, in bytes."""
    return 2 * ENTRY_OVERHEAD + sum(1024 + 4 * len(scope.name) for scope in claims.scopes)


# Claims of tokens whose signature has been verified.
_verified_tokens: Final = LruCache[str, tokens.Claims](32 * 1024 * 1024, _size_of)


def _no_scopes(found: Rows) -> tuple[str, ...] | None:
    """No scopes: a signing key is deleted only after every token that it has signed has expired."""
    return () if found else None


def _verified(token: str, *, may_have_expired: bool) -> tokens.Claims:
    claims = _verified_tokens.get(token)
    if claims is None or (claims.expires_at <= time.time() and not may_have_expired):
        kid = tokens.kid_of(token)
        if row(_SIGNING_KEY, [kid], depends_on=_no_scopes) is None:
            raise BadCredentials(Reason.INVALID_ARGUMENT)
        claims = tokens.verify(token, kid=kid, may_have_expired=may_have_expired)
        _verified_tokens.put(token, claims)
    return claims


def published_keys() -> list[dict[str, str]]:
    """The public keys of all valid signing keys (`keys` of a JWK set)."""
    return [
        tokens.public_jwk(kid)
        for kid in SigningKey.objects.order_by("created_at").values_list("kid", flat=True)
    ]


def _signing_kid() -> str:
    newest = row(_NEWEST_SIGNING_KEY, [])
    return str(newest[0]) if newest else rotate_signing_keys() or _signing_kid()


@transaction.atomic
def rotate_signing_keys() -> str | None:
    """Create a new key if the newest is older than 30 days, and delete keys whose last token has expired.

    Returns the id of the new key; None if no new key was needed.
    """
    keys = list(SigningKey.objects.select_for_update().order_by("-created_at"))
    age_limit = now() - SIGNING_KEY_LIFE
    if keys and keys[0].created_at > age_limit:
        return None
    for key in keys[1:]:
        key.delete()
    new_key = SigningKey.objects.create(kid=tokens.new_kid())
    record(
        actor=SYSTEM, verb="signing_key.create", target=Target("signingkey", new_key.kid, new_key.kid, None)
    )
    return new_key.kid
