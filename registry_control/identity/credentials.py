"""The two halves of an API key: made here, and the secret one stored as a keyed hash."""

import secrets
import string
from typing import Final
from uuid import uuid4

from registry_control.common.secrets import keyed_hash

PEPPER: Final = "api key secret"
_ALPHABET: Final = string.ascii_uppercase + string.digits


def new_access_key() -> str:
    """`SCW` and 17 upper-case letters or digits, the form that Scaleway's clients insist on.

    With 87 random bits none ever comes twice, also not after its key was deleted.
    """
    return "SCW" + "".join(secrets.choice(_ALPHABET) for _ in range(17))


def new_secret_key() -> str:
    """A lower-case UUIDv4 (122 random bits), likewise what the clients insist on."""
    return str(uuid4())


def secret_hmac(secret: str) -> str:
    """What is stored of a secret key: it can be found again, but not read."""
    return keyed_hash(PEPPER, secret)
