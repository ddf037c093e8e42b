"""The Authorization header of the Basic scheme (RFC 7617)."""

import base64
import binascii
from typing import Final

_MALFORMED: Final = "malformed"  # not a secret key: those are UUIDs


def basic_password(header: str) -> str:
    """The password of an Authorization header, in UTF-8 (OCI 162). The user name is ignored.

    Empty for an anonymous caller: without a header, or if the password is empty. A malformed header or one of
    another scheme counts as a wrong password: its sender wants to authenticate.
    """
    if not header:
        return ""
    scheme, _, value = header.partition(" ")
    try:
        _, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return _MALFORMED
    return password if colon and scheme.lower() == "basic" else _MALFORMED
