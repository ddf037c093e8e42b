"""Converts exceptions to JSON errors of the v1 API.

`handle` is the exception handler of the views. The other functions are Django's handlers for errors outside
of them.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions
from rest_framework.response import Response

from registry_control.common.errors import InvalidArgument, ServiceError

logger = logging.getLogger(__name__)

# Errors of the administration pages are Django's HTML pages, because administrators use browsers.
PAGES: Final = "/admin/"

# Error codes of serializer fields as reasons of the v1 API: `unknown`, `required`, `format`, `constraint`.
_REASONS: Final = {
    "required": "required",
    "unknown": "unknown",
    "min_value": "constraint",
    "max_value": "constraint",
    "max_length": "constraint",
    "blank": "constraint",
    "invalid_choice": "constraint",
}

_UNAVAILABLE: Final = "the database does not respond; try again later"
_RETRY: Final = {"Retry-After": "5"}  # seconds


def handle(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """The response for an exception of a view; None for a bug: Django logs it and calls `server_error`."""
    rendered = _rendered(error, context["request"].path)
    if rendered is None:
        return None
    status, body = rendered
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = context["view"].get_authenticate_header(context["request"])
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(vars(error)["wait"])  # the attribute is missing from the type stubs
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers |= _RETRY
        logger.error("the database does not respond", exc_info=error)
    return Response(body, status=status, headers=headers)


def _rendered(error: Exception, path: str) -> tuple[HTTPStatus, dict[str, object]] | None:
    match error:
        case ServiceError():
            return error.status, _body(error.type, error.message, **error.fields())
        case exceptions.ValidationError():
            return HTTPStatus.BAD_REQUEST, _invalid(_details(error))
        case exceptions.ParseError():
            return _rendered(InvalidArgument("body", str(error.detail)), path)
        case exceptions.APIException():
            return _framework(HTTPStatus(error.status_code), str(error.detail), path)
        case RequestDataTooBig():
            return _framework(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", path)
        case OperationalError() | InterfaceError():
            return _framework(HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE, path)
        case _:
            return None


def _framework(status: HTTPStatus, message: str, path: str) -> tuple[HTTPStatus, dict[str, object]]:
    """Status and body of an error that the v1 API does not define; clients show the message of such types."""
    if status == HTTPStatus.NOT_FOUND:
        return status, _body("not_found", message, resource="path", resource_id=path)
    return status, _body(status.phrase.lower().replace(" ", "_"), message)


def _body(type_: str, message: str, **fields: object) -> dict[str, object]:
    return {"type": type_, "message": message, **fields}


def _invalid(details: list[dict[str, str]]) -> dict[str, object]:
    return _body("invalid_arguments", "invalid argument(s)", details=details)


def _details(error: exceptions.ValidationError) -> list[dict[str, str]]:
    fields = cast("dict[str, list[dict[str, Any]]]", error.get_full_details())
    return [
        {
            "argument_name": "body" if name == "non_field_errors" else name,
            "reason": _REASONS.get(problem["code"], "format"),
            "help_message": str(problem["message"]),
        }
        for name, problems in fields.items()
        for problem in problems
    ]


def host_not_allowed(request: HttpRequest) -> HttpResponse:
    """The response to a Host header that is not in REGISTRY_ALLOWED_HOSTS."""
    message = "this host is not in REGISTRY_ALLOWED_HOSTS: add it there, without a port"
    return _json(request, HTTPStatus.BAD_REQUEST, message)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The response to a request that Django cannot parse (handler400)."""
    if request.path.startswith(PAGES):
        return defaults.bad_request(request, exception)
    too_large = isinstance(exception, RequestDataTooBig)
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
    return _json(request, status, "the request is malformed or too large")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The response to a request that Django rejects, for example without a CSRF token (handler403)."""
    if request.path.startswith(PAGES):
        return defaults.permission_denied(request, exception)
    return _json(request, HTTPStatus.FORBIDDEN, "the request is not permitted")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The response for a path without a route (handler404)."""
    if request.path.startswith(PAGES):
        return defaults.page_not_found(request, exception)
    return _json(request, HTTPStatus.NOT_FOUND, "unknown path")


def server_error(request: HttpRequest) -> HttpResponse:
    """The response for a bug, without details (handler500)."""
    if request.path.startswith(PAGES):
        return defaults.server_error(request)
    return _json(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")


def database_unavailable(request: HttpRequest) -> HttpResponse:
    """The response when the database does not respond or a lock timed out: a retry may succeed."""
    if request.path.startswith(PAGES):
        content = "<h1>Try again</h1><p>The database does not respond, or another user is changing this.</p>"
        return HttpResponse(content, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=_RETRY)
    response = _json(request, HTTPStatus.SERVICE_UNAVAILABLE, _UNAVAILABLE)
    response.headers["Retry-After"] = _RETRY["Retry-After"]
    return response


def _json(request: HttpRequest, status: HTTPStatus, message: str) -> HttpResponse:
    _, body = _framework(status, message, request.path)
    return JsonResponse(body, status=status)
