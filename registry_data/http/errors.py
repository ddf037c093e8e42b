"""Converts exceptions to error responses of the OCI specification (OCI 141)."""

import json
import logging
from collections.abc import Iterable
from http import HTTPStatus

from registry_data.http.messages import Response
from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError

logger = logging.getLogger(__name__)


def to_response(error: Exception) -> Response:
    """Return the response for an exception; 500 if it is not a ProtocolError."""
    if isinstance(error, ProtocolError):
        headers = {name.lower(): value for name, value in error.headers.items()}
        return _response(error.status, headers, error.errors)
    # A bug: the log gets the traceback, the client no details.
    logger.error("unhandled error", exc_info=error)
    unknown = ErrorCode.UNKNOWN
    return _response(unknown.status, {}, [ErrorItem(unknown, unknown.message)])


def _response(status: HTTPStatus, headers: dict[str, str], errors: Iterable[ErrorItem]) -> Response:
    body = {"errors": [_entry(item) for item in errors]}
    return Response(status, {**headers, "content-type": "application/json"}, json.dumps(body).encode())


def _entry(item: ErrorItem) -> dict[str, object]:
    entry: dict[str, object] = {"code": item.code.name, "message": item.message}
    # oras, helm and docker print the detail; an empty object would appear as "map[]".
    return {**entry, "detail": dict(item.detail)} if item.detail else entry
