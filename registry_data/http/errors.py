"""The one place where an exception becomes an OCI error body (checklist 141)."""

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

from registry_data.http.messages import Response
from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError

logger = logging.getLogger(__name__)


def to_response(error: Exception) -> Response:
    """Say in the protocol's words what went wrong."""
    if isinstance(error, ProtocolError):
        headers = {name.lower(): value for name, value in error.headers.items()}
        return _response(error.status, headers, error.errors)
    # Not in the spec's words, so it is our fault: log all of it, tell the client none of it.
    logger.error("unhandled error", exc_info=error)
    unknown = ErrorCode.UNKNOWN
    return _response(unknown.status, {}, [ErrorItem(unknown, unknown.message)])


def _response(status: HTTPStatus, headers: dict[str, str], errors: Iterable[ErrorItem]) -> Response:
    body = {"errors": [_entry(item) for item in errors]}
    return Response(status, {**headers, "content-type": "application/json"}, json.dumps(body).encode())


def _entry(item: ErrorItem) -> dict[str, object]:
    entry: dict[str, object] = {"code": item.code.name, "message": item.message}
    # oras, helm and docker print what they find there, an empty object as "map[]".
    return {**entry, "detail": dict(item.detail)} if item.detail else entry
