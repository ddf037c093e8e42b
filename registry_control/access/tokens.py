"""Short-lived tokens: JWTs signed with Ed25519; other algorithms and keys in a token are rejected (OCI 159).

A token names the API key of its caller and the granted scopes. It can only restrict the current rights.
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
    """The claims of a verified token. An empty `access_key` means an anonymous caller."""

    access_key: str
    scopes: tuple[Scope, ...]
    expires_at: float


@lru_cache(maxsize=64)
def _private_key(kid: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(derived_key(f"token signing key {kid}"))


def new_kid() -> str:
    """A random id for a new signing key."""
    return secrets.token_hex(8)


def public_jwk(kid: str) -> dict[str, str]:
    """A public key as a JWK (RFC 8037)."""
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
    """Sign a token for the holder of an API key; for an anonymous caller `access_key` is empty."""
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
    """The id of the signing key in a token's header; not verified.

    Raises:
        BadCredentials: the token is malformed or has another algorithm.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise BadCredentials(Reason.INVALID_ARGUMENT) from error
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(kid, str) or not kid.isalnum():
        raise BadCredentials(Reason.INVALID_ARGUMENT)
    return kid


def verify(token: str, *, kid: str, may_have_expired: bool = False) -> Claims:
    """Verify signature, times, issuer and audience. The caller has found the signing key in the database.

    With `may_have_expired`, its expiry time does not matter.

    Raises:
        BadCredentials: the token has expired or is invalid.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            _private_key(kid).public_key(),
            algorithms=[ALGORITHM],
            audience=SERVICE,
            issuer=ISSUER,
            leeway=_SKEW,
            options={"require": _REQUIRED, "verify_exp": not may_have_expired},
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
