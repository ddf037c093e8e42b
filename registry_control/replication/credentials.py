"""Passwords of targets, encrypted at rest (ADR 56).

The sealed form is a version byte, a random nonce of 12 bytes, and the ciphertext with its tag (AES-256-GCM).
The key is derived from REGISTRY_SECRET_KEY, and the id of the target is authenticated with the ciphertext, so
that a password cannot be moved to another target in the database.
"""

import os
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from registry_control.common.secrets import derived_key

_VERSION: Final = b"\x01"
_NONCE: Final = 12  # bytes; NIST SP 800-38D, section 8.2.2
_PURPOSE: Final = "replication target passwords, version 1"


class Unreadable(Exception):
    """A password was encrypted with another REGISTRY_SECRET_KEY, or its bytes were changed."""


def seal(password: str, *, target_id: UUID) -> bytes:
    """Encrypt a password; the empty password is stored as no bytes."""
    if not password:
        return b""
    nonce = os.urandom(_NONCE)
    return _VERSION + nonce + _cipher().encrypt(nonce, password.encode(), target_id.bytes)


def unseal(sealed: bytes, *, target_id: UUID) -> str:
    """Decrypt a password.

    Raises:
        Unreadable: it was encrypted with another key or for another target.
    """
    if not sealed:
        return ""
    if sealed[:1] != _VERSION:
        raise Unreadable
    nonce, ciphertext = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
    try:
        return _cipher().decrypt(nonce, ciphertext, target_id.bytes).decode()
    except (InvalidTag, ValueError) as error:
        raise Unreadable from error


def _cipher() -> AESGCM:
    return AESGCM(derived_key(_PURPOSE))
