"""Request bodies of the control plane, and checks before the application receives a request."""

from http import HTTPStatus
from io import BytesIO
from typing import Final

from starlette.types import Receive, Scope

from registry_data.rejections import rejection_of

_UNBUDGETED: Final = 64 * 1024  # bytes of each body that do not count in the budget: most bodies are smaller
_BUDGET: Final = 64 * 1024 * 1024  # bytes of all bodies, beyond the first _UNBUDGETED of each
_HEADERS: Final = 64 * 1024  # bytes of all header fields
_TARGET: Final = 16 * 1024  # bytes of path and query


class RequestRejected(Exception):
    """The request is rejected before the application receives it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyBudget:
    """The memory that all bodies of this process share."""

    def __init__(self, size: int = _BUDGET) -> None:
        self._free = size

    def reserve(self, size: int) -> None:
        """Reserve bytes of the budget, or release them if `size` is negative.

        Raises:
            RequestRejected: 503, the budget is exhausted.
        """
        if size > self._free:
            raise RequestRejected(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many large requests at once: try again"
            )
        self._free -= size


class Body:
    """The body of one request."""

    def __init__(self, receive: Receive, budget: BodyBudget) -> None:
        self.is_complete = False
        self._receive, self._budget = receive, budget
        self._bytes = bytearray()
        self._reserved = 0

    async def read(self, limit: int, announced: str) -> None:
        """Read the whole body.

        Raises:
            RequestRejected: it is larger than `limit` or the budget, malformed, or incomplete.
        """
        if announced in ("", "0") and not limit:
            limit = 1  # the end of an empty body is a message too
        if not limit:
            return
        if announced and int(announced) > limit:
            raise RequestRejected(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes"
            )
        while not self.is_complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_complete = True
                raise RequestRejected(HTTPStatus.BAD_REQUEST, "the body is malformed or ended early")
            self._append(message.get("body", b""), limit)
            self.is_complete = not message.get("more_body", False)

    def _append(self, part: bytes, limit: int) -> None:
        size = len(self._bytes) + len(part)
        if size > limit:
            raise RequestRejected(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {limit} bytes"
            )
        if size - _UNBUDGETED > self._reserved:
            self._budget.reserve(size - _UNBUDGETED - self._reserved)
            self._reserved = size - _UNBUDGETED
        self._bytes += part

    def take(self) -> BytesIO:
        """The body as a file."""
        body, self._bytes = BytesIO(self._bytes), bytearray()
        return body

    def release(self) -> None:
        """Drop the body and release its part of the budget."""
        self._budget.reserve(-self._reserved)
        self._reserved, self._bytes = 0, bytearray()


def check_head(scope: Scope) -> None:
    """Check the request line and the headers.

    Raises:
        RequestRejected: 414, 431, 501, or what the server has rejected it for.
    """
    rejection = rejection_of(scope)
    if rejection is not None:
        raise RequestRejected(rejection.status, rejection.message)
    if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > _TARGET:
        raise RequestRejected(
            HTTPStatus.REQUEST_URI_TOO_LONG, f"path and query are longer than {_TARGET} bytes"
        )
    if sum(len(name) + len(value) for name, value in scope["headers"]) > _HEADERS:
        raise RequestRejected(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers are larger than {_HEADERS} bytes"
        )
    if header(scope, b"transfer-encoding").lower() not in ("", "chunked"):
        raise RequestRejected(
            HTTPStatus.NOT_IMPLEMENTED, "the only transfer encoding that is supported is chunked"
        )


def header(scope: Scope, wanted: bytes) -> str:
    """The values of a header, joined with commas; empty without one."""
    return ",".join(value.decode("latin-1").strip() for name, value in scope["headers"] if name == wanted)
