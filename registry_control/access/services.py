"""The auth service of both planes: who is this, what may they do, and tokens that carry it."""

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
    """What a decision about an image looks at; None for what is not there."""

    namespace: NamespaceFacts | None
    visibility: Visibility | None


FactsSource = Callable[[str], RepositoryFacts]
"""Finds the facts of a full repository name; the apps above this one know how."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and the scopes of the token it came with (None: no token narrows it)."""

    principal: Principal
    scopes: tuple[Scope, ...] | None
    token_ends_at: float = math.inf  # seconds since the epoch

    @property
    def ends_at(self) -> float:
        """When key or token end by themselves, in seconds since the epoch."""
        key = self.principal.ends_at
        return self.token_ends_at if key is None else min(self.token_ends_at, key.timestamp())

    @property
    def actor(self) -> Actor:
        """The principal as services and audit rows name it."""
        return actor_of(self.principal)

    @property
    def is_anonymous(self) -> bool:
        """Whether it is nobody, with a token or without."""
        return self.principal.kind is Kind.ANONYMOUS


NOBODY: Final = Caller(ANONYMOUS, None)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and what the answer to its request says about it."""

    token: str
    scopes: tuple[Scope, ...]
    issued_at: datetime
    expires_in: int  # seconds


def actor_of(principal: Principal) -> Actor:
    """The principal as audit rows remember it."""
    return Actor(kind=ActorKind(principal.kind), id=str(principal.id), name=principal.name)


def authenticate(*, secret: str | None = None, token: str | None = None) -> Caller:
    """Who calls, by secret key or by token, with the rights of this moment.

    Raises:
        BadCredentials: they prove nobody, or no longer.
    """
    if token is not None:
        claims = _verified(token)
        principal = principal_by_access_key(claims.access_key) if claims.access_key else ANONYMOUS
        caller = Caller(principal, claims.scopes, claims.expires_at)
    else:
        caller = Caller(principal_by_secret(secret), None) if secret is not None else NOBODY
    if not caller.is_anonymous:
        request_context.identified(caller.principal.reference)
    return caller


def refresh_token_of(caller: Caller) -> str | None:
    """What a client may keep in place of the secret key that it has just shown; None for nobody.

    It is good for asking for tokens and for nothing else, for as long as the key stands.
    """
    access_key = caller.principal.access_key
    stored_hash = stored_hash_of(access_key) if access_key else None
    return None if stored_hash is None else refresh_tokens.make(access_key, stored_hash)


def authenticate_refresh_token(refresh_token: str) -> Caller:
    """Who logged in and was given this refresh token, with the rights of this moment.

    Raises:
        LoginEnded: it is none of ours; or its key was deleted or has expired, or the principal is gone.
    """
    access_key = refresh_tokens.access_key_of(refresh_token)
    stored_hash = stored_hash_of(access_key)
    if stored_hash is None:
        raise InvalidRefreshToken(Reason.NOT_FOUND)
    refresh_tokens.check(refresh_token, access_key, stored_hash)
    try:
        return Caller(principal_by_access_key(access_key), None)
    except BadCredentials as error:
        raise InvalidRefreshToken(error.why) from error


def authorize(
    caller: Caller,
    action: Action,
    repository: str,
    facts: RepositoryFacts,
    *,
    accepted_actions: Collection[Action] = (),
) -> Decision:
    """The live decision, narrowed by the caller's token (invariant 5).

    `by` names the token's actions of which one is enough, where that is not just the action itself.
    """
    decision = decide(action, facts_for(caller.principal, facts.namespace, facts.visibility))
    if (
        decision.allowed
        and caller.scopes is not None
        and not _covers(caller.scopes, repository, accepted_actions or (action,))
    ):
        return Decision(False, f"the token was not issued for {action} on {repository}")
    return decision


def issue_token(caller: Caller, asked: Iterable[Scope], facts_of: FactsSource) -> IssuedToken:
    """A token for what the caller may do of what was asked; less than asked is no error (checklist 152)."""
    scopes = tuple(
        Scope(type=scope.type, name=scope.name, actions=granted)
        for scope in asked
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
    asked = [action for action in _ACTIONS if {action, "*"} & scope.actions]
    facts = facts_of(scope.name) if asked else None
    return frozenset(
        action for action in asked if facts and authorize(caller, action, scope.name, facts).allowed
    )


def _covers(scopes: Iterable[Scope], repository: str, actions: Collection[Action]) -> bool:
    return any(
        scope.type == "repository" and scope.name == repository and not scope.actions.isdisjoint(actions)
        for scope in scopes
    )


def _size_of(claims: tokens.Claims) -> int:
    """Memory that a cached token and its claims take in bytes, about."""
    return 2 * ENTRY_OVERHEAD + sum(1024 + 4 * len(scope.name) for scope in claims.scopes)


# Tokens whose signature has been verified.
_verified_tokens: Final = LruCache[str, tokens.Claims](32 * 1024 * 1024, _size_of)


def _while_tokens_last(found: Rows) -> tuple[str, ...] | None:
    """A signing key is deleted only when every token that it has signed has expired."""
    return () if found else None


def _verified(token: str) -> tokens.Claims:
    claims = _verified_tokens.get(token)
    if claims is None or claims.expires_at <= time.time():
        kid = tokens.kid_of(token)
        if row(_SIGNING_KEY, [kid], depends_on=_while_tokens_last) is None:
            raise BadCredentials(Reason.INVALID_ARGUMENT)
        claims = tokens.verify(token, kid=kid)
        _verified_tokens.put(token, claims)
    return claims


def published_keys() -> list[dict[str, str]]:
    """The public keys that tokens may be signed with now (a JWK set's `keys`)."""
    return [
        tokens.public_jwk(kid)
        for kid in SigningKey.objects.order_by("created_at").values_list("kid", flat=True)
    ]


def _signing_kid() -> str:
    newest = row(_NEWEST_SIGNING_KEY, [])
    return str(newest[0]) if newest else rotate_signing_keys() or _signing_kid()


@transaction.atomic
def rotate_signing_keys() -> str | None:
    """Make a new key when the newest is old; forget keys whose last token has long expired.

    Returns the new key's name, or None when nothing was due.
    """
    keys = list(SigningKey.objects.select_for_update().order_by("-created_at"))
    age_limit = now() - SIGNING_KEY_LIFE
    if keys and keys[0].created_at > age_limit:
        return None
    for key in keys[1:]:
        key.delete()
    fresh = SigningKey.objects.create(kid=tokens.new_kid())
    record(actor=SYSTEM, verb="signing_key.create", target=Target("signingkey", fresh.kid, fresh.kid, None))
    return fresh.kid
