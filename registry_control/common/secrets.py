"""Keys for different purposes from the one server secret, so that none can stand in for another."""

import hmac
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


@lru_cache(maxsize=64)
def derived_key(purpose: str) -> bytes:
    """32 bytes that only this server's secret and this purpose give (HKDF-SHA-256, RFC 5869)."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=b"stowage", info=purpose.encode())
    return kdf.derive(settings.SECRET_KEY.encode())


def keyed_hash(purpose: str, value: str) -> str:
    """HMAC-SHA-256 in hex: finds a secret again without storing it."""
    return hmac.new(derived_key(purpose), value.encode(), sha256).hexdigest()
