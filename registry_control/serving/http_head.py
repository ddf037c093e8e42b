"""Heads of HTTP/1.1 requests: found in what a client sends, limited, and checked before they are parsed."""

import re
from http import HTTPStatus
from typing import Final

from registry_data.rejections import Rejection

_LARGEST: Final = 160 * 1024  # bytes of request line and header fields; both planes have smaller limits
_END: Final = b"\r\n\r\n"
# The method of a request line (RFC 9110, section 9.1), perhaps not all of it yet.
_METHOD: Final = re.compile(rb"[\r\n]{0,4}([!#$%&'*+.^_`|~0-9A-Za-z-]{0,64})(?: |\Z)")
_UPGRADE: Final = re.compile(rb"(?<=\n)upgrade(?=[ \t]*:)", re.IGNORECASE)


class RequestRejected(Exception):
    """The server rejects a request."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.rejection = Rejection(status, message)


def malformed(reason: object) -> RequestRejected:
    """The error for a request that is not valid HTTP."""
    return RequestRejected(HTTPStatus.BAD_REQUEST, f"the request is malformed: {reason}")


class HeadBuffer:
    """Keeps an incomplete head."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def split(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Return a complete head, empty while it is incomplete, and the index in `data` after it.

        Raises:
            RequestRejected: 400, 414 or 431.
        """
        known = len(self._bytes)
        end = -1 if known else data.find(_END, start)
        if end >= 0:  # the usual case: one part has the whole head
            stop = end + len(_END)
            head = data[start:stop]
        else:
            self._bytes += data[start:]
            end = self._bytes.find(_END, max(0, known - len(_END)))
            if end < 0:
                _check(self._bytes)
                return b"", len(data)
            stop = start + end + len(_END) - known
            head = bytes(self._bytes[: end + len(_END)])
            self._bytes.clear()
        if len(head) > _LARGEST:
            raise _too_large(head)
        return _without_upgrade(head), stop


def method_of(head: bytes) -> tuple[bytes, bytes]:
    """The method of a request, and the head after it.

    Raises:
        RequestRejected: 400.
    """
    found = _METHOD.match(head)
    if found is None or not found[1]:
        raise malformed("this is no HTTP/1.1")
    return found[1], head[found.end(1) :]


def _check(head: bytearray) -> None:
    """Reject what will not become a head, such as TLS: its client waits for an answer."""
    if len(head) > _LARGEST:
        raise _too_large(head)
    if not _METHOD.match(head):
        raise malformed("this is no HTTP/1.1")


def _too_large(head: bytes | bytearray) -> RequestRejected:
    if b"\r\n" in head[:_LARGEST]:
        message = f"the headers are too large; {_LARGEST} bytes at most are read"
        return RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    message = f"the request line is longer than {_LARGEST} bytes"
    return RequestRejected(HTTPStatus.REQUEST_URI_TOO_LONG, message)


def _without_upgrade(head: bytes) -> bytes:
    """Rename Upgrade fields. No other protocol is spoken here, but the parser would end after such a head."""
    return _UPGRADE.sub(b"ignored", head) if b"\nupgrade" in head.lower() else head
