"""Refresh tokens: what an engine keeps after a login in place of the secret key (docs/adr/0017).

Nothing of one is stored: it is computed from its API key's row and the server's secret, and so ends with
either. To clients it is opaque.
"""

import re
from hmac import compare_digest
from typing import Final

from registry_control.access.errors import InvalidRefreshToken, Reason
from registry_control.common.secrets import keyed_hash

_FORM: Final = re.compile(r"stowage_([A-Z0-9]{20})_[0-9a-f]{64}")


def make(access_key: str, stored_hash: str) -> str:
    """The refresh token of the API key with this access key and this stored hash of its secret."""
    # The secret's hash is in it: a key that got another secret would be another key.
    return f"stowage_{access_key}_{keyed_hash('refresh token', f'{access_key} {stored_hash}')}"


def access_key_of(refresh_token: str) -> str:
    """Which API key a refresh token says it was made from; nothing is believed yet.

    Raises:
        LoginEnded: it is none of ours.
    """
    match = _FORM.fullmatch(refresh_token)
    if match is None:
        raise InvalidRefreshToken(Reason.INVALID_ARGUMENT)
    return match[1]


def check(refresh_token: str, access_key: str, stored_hash: str) -> None:
    """Believe a refresh token.

    Raises:
        LoginEnded: it was not made from this key.
    """
    if not compare_digest(refresh_token.encode(), make(access_key, stored_hash).encode()):
        raise InvalidRefreshToken(Reason.NOT_FOUND)
