"""The one place where an exception becomes an error of the v1 API, and always JSON.

`handle` serves the views, the other functions whatever fails before one is found (the URLconf's handlers).
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

# Administrators use browsers: what fails there is said in Django's own pages.
PAGES: Final = "/admin/"

# What a field's own code is to clients, who know `unknown`, `required`, `format` and `constraint`.
_REASONS: Final = {
    "required": "required",
    "min_value": "constraint",
    "max_value": "constraint",
    "max_length": "constraint",
    "blank": "constraint",
    "invalid_choice": "constraint",
}

_AWAY: Final = "the database did not answer; try again"
_RETRY: Final = {"Retry-After": "5"}  # seconds


def handle(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Render what a view raised; None for what is our fault, which Django logs and `server_error` answers."""
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
        logger.error("the database did not answer", exc_info=error)
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
            return _framework(HTTPStatus.SERVICE_UNAVAILABLE, _AWAY, path)
        case _:
            return None


def _framework(status: HTTPStatus, message: str, path: str) -> tuple[HTTPStatus, dict[str, object]]:
    """Errors that only HTTP has a name for; clients without a class for the type show the message."""
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
    """Answer for a Host that this registry does not have."""
    message = "this host is not in REGISTRY_ALLOWED_HOSTS: add it there, without a port"
    return _json(request, HTTPStatus.BAD_REQUEST, message)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer for what Django refuses to read (handler400)."""
    if request.path.startswith(PAGES):
        return defaults.bad_request(request, exception)
    too_large = isinstance(exception, RequestDataTooBig)
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if too_large else HTTPStatus.BAD_REQUEST
    return _json(request, status, "the request cannot be read")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer for what Django does not permit (handler403)."""
    if request.path.startswith(PAGES):
        return defaults.permission_denied(request, exception)
    return _json(request, HTTPStatus.FORBIDDEN, "the request is not permitted")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer for a path that leads nowhere (handler404)."""
    if request.path.startswith(PAGES):
        return defaults.page_not_found(request, exception)
    return _json(request, HTTPStatus.NOT_FOUND, "there is nothing at this path")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer for our own faults, and say nothing of them (handler500)."""
    if request.path.startswith(PAGES):
        return defaults.server_error(request)
    return _json(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")


def database_away(request: HttpRequest) -> HttpResponse:
    """Answer where the same request may succeed soon."""
    if request.path.startswith(PAGES):
        content = "<h1>Try again</h1><p>The database did not answer, or somebody else is changing this.</p>"
        return HttpResponse(content, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=_RETRY)
    answer = _json(request, HTTPStatus.SERVICE_UNAVAILABLE, _AWAY)
    answer.headers["Retry-After"] = _RETRY["Retry-After"]
    return answer


def _json(request: HttpRequest, status: HTTPStatus, message: str) -> HttpResponse:
    _, body = _framework(status, message, request.path)
    return JsonResponse(body, status=status)
