"""Refresh tokens, which container engines store after a login instead of the secret key (ADR 19).

A refresh token is derived from the row of its API key and the server's secret, and becomes invalid when
either changes. It is not stored, and opaque to clients.
"""

import re
from hmac import compare_digest
from typing import Final

from registry_control.access.errors import InvalidRefreshToken, Reason
from registry_control.common.secrets import keyed_hash

_FORMAT: Final = re.compile(r"stowage_([A-Z0-9]{20})_[0-9a-f]{64}")


def make(access_key: str, stored_hash: str) -> str:
    """The refresh token of the API key with this access key and this stored hash of its secret."""
    # Includes the hash of the secret, so that a new secret invalidates the token.
    return f"stowage_{access_key}_{keyed_hash('refresh token', f'{access_key} {stored_hash}')}"


def access_key_of(refresh_token: str) -> str:
    """The access key in a refresh token; not verified.

    Raises:
        InvalidRefreshToken: the token is malformed.
    """
    match = _FORMAT.fullmatch(refresh_token)
    if match is None:
        raise InvalidRefreshToken(Reason.INVALID_ARGUMENT)
    return match[1]


def check(refresh_token: str, access_key: str, stored_hash: str) -> None:
    """Verify a refresh token.

    Raises:
        InvalidRefreshToken: the token was not derived from this key and secret.
    """
    if not compare_digest(refresh_token.encode(), make(access_key, stored_hash).encode()):
        raise InvalidRefreshToken(Reason.NOT_FOUND)
