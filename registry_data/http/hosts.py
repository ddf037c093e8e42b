"""Validation of the Host header: exactly one, and well-formed (RFC 9112, section 3.2).

The challenge repeats it to the client, so it must not contain anything else.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from registry_data.http.messages import Request
from registry_data.oci.errors import ErrorCode, ProtocolError, shown

_NAME: Final = rb"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+"
_HOST: Final = re.compile(rb"(?:" + _NAME + rb"|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LONGEST: Final = 253 + 6  # characters of a name in the DNS, with a port
_CACHED_HOSTS: Final = 64  # a registry has a few


def is_host(value: bytes) -> bool:
    """Whether the value of a header is a host with an optional port."""
    return len(value) <= _LONGEST and _is_well_formed(value)


@lru_cache(_CACHED_HOSTS)
def _is_well_formed(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def check_host(request: Request) -> None:
    """Require exactly one valid Host header; HTTP/1.0 may omit it.

    Raises:
        ProtocolError: 400.
    """
    first, *more = request.raw_values(b"host") or [b""]
    if more:
        raise _bad_request("the request has several Host headers: send one")
    if not first:  # the server adds an empty header if there is none
        if request.http_version == "1.1":
            raise _bad_request("the request has no Host header: send one with the registry's host")
    elif not is_host(first):
        raise _bad_request(
            f"the Host header {shown(first.decode('latin-1'))} is not a valid host: "
            "send it as <name> or <name>:<port>"
        )


def _bad_request(message: str) -> ProtocolError:
    return ProtocolError(ErrorCode.UNSUPPORTED, message, status=HTTPStatus.BAD_REQUEST)
