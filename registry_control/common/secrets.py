"""Separate keys for separate purposes, derived from the server secret (ADR 3)."""

import hmac
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


@lru_cache(maxsize=64)
def derived_key(purpose: str) -> bytes:
    """A 32-byte key derived from the server secret for one purpose (HKDF-SHA-256, RFC 5869)."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=b"stowage", info=purpose.encode())
    return kdf.derive(settings.SECRET_KEY.encode())


def keyed_hash(purpose: str, value: str) -> str:
    """HMAC-SHA-256 in hex: allows a secret to be looked up without storing it."""
    return hmac.new(derived_key(purpose), value.encode(), sha256).hexdigest()
