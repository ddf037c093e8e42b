"""Short-lived tokens: JWT, Ed25519, one algorithm, keys never taken from the token (checklist 159).

A token says who asked and what for; it can only narrow what the live decision allows.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode

from registry_control.access.errors import BadCredentials, Reason
from registry_control.common.secrets import derived_key
from registry_data.oci.scopes import Scope

ALGORITHM: Final = "EdDSA"
ISSUER: Final = "stowage"
SERVICE: Final = "registry"
_SKEW: Final = timedelta(seconds=30)
_REQUIRED: Final = ["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "key", "access"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked token says. An empty `access_key` is an anonymous caller."""

    access_key: str
    scopes: tuple[Scope, ...]
    expires_at: float


@lru_cache(maxsize=64)
def _private_key(kid: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derived_key(f"token signing key {kid}"))


def new_kid() -> str:
    """A name for a new signing key."""
    return secrets.token_hex(8)


def public_jwk(kid: str) -> dict[str, str]:
    """One key of the published set (RFC 8037)."""
    raw = _private_key(kid).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": ALGORITHM,
        "kid": kid,
        "x": base64url_encode(raw).decode(),
    }


def sign(
    *, kid: str, access_key: str, subject: str, scopes: Iterable[Scope], issued_at: datetime, life: timedelta
) -> str:
    """A token for the holder of a key (or for nobody), good for these scopes and this long."""
    claims = {
        "iss": ISSUER,
        "aud": SERVICE,
        "sub": subject,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + life,
        "jti": uuid4().hex,
        "key": access_key,
        "access": [
            {"type": scope.type, "name": scope.name, "actions": sorted(scope.actions)} for scope in scopes
        ],
    }
    return jwt.encode(claims, _private_key(kid), algorithm=ALGORITHM, headers={"kid": kid})


def kid_of(token: str) -> str:
    """Which key a token says it was signed with; nothing is believed yet.

    Raises:
        BadCredentials: not a token at all, or of another algorithm.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise BadCredentials(Reason.INVALID_ARGUMENT) from error
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(kid, str) or not kid.isalnum():
        raise BadCredentials(Reason.INVALID_ARGUMENT)
    return kid


def verify(token: str, *, kid: str) -> Claims:
    """Check signature, times, issuer and audience under a key that the caller knows to be ours.

    Raises:
        BadCredentials: anything is wrong with it.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            _private_key(kid).public_key(),
            algorithms=[ALGORITHM],
            audience=SERVICE,
            issuer=ISSUER,
            leeway=_SKEW,
            options={"require": _REQUIRED},
        )
        return _claims(claims)
    except jwt.ExpiredSignatureError as error:
        raise BadCredentials(Reason.EXPIRED) from error
    except (jwt.InvalidTokenError, KeyError, TypeError, AttributeError) as error:
        raise BadCredentials(Reason.INVALID_ARGUMENT) from error


def _claims(claims: dict[str, Any]) -> Claims:
    scopes = tuple(
        Scope(type=item["type"], name=item["name"], actions=frozenset(item["actions"]))
        for item in claims["access"]
    )
    return Claims(access_key=claims["key"], scopes=scopes, expires_at=float(claims["exp"]))
