"""Middleware for every request to the control plane."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from registry_control.common import request_context
from registry_control.rest.errors import database_unavailable, host_not_allowed

logger = logging.getLogger(__name__)

_HOST_SHOWN = 100  # characters of a rejected Host header in the log


class RequestId:
    """Adds the request id to the response, and to the log message of a server error.

    `serving.request_log` has started the request context, unless Django runs in another server.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Respond with the header X-Request-Id."""
        context = request_context.current()
        if context is not None:
            return self._respond(request, context)
        try:
            return self._respond(request, request_context.start(request.headers.get("X-Request-Id")))
        finally:
            request_context.end()

    def _respond(self, request: HttpRequest, context: request_context.RequestContext) -> HttpResponseBase:
        response = self._get_response(request)
        response["X-Request-Id"] = context.request_id
        user = getattr(request, "_cached_user", None)  # set by Django if the session was loaded
        if user is not None and user.is_authenticated:
            context.principal = f"user:{user.pk}"
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("request %s: the response has status %d", context.request_id, response.status_code)
        return response


class DatabaseUnavailable:
    """Responds with 503 if the database does not respond or the wait for a row lock timed out."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """Handle an exception of a page; `errors.handle` does it for the views of the API."""
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        logger.error("the database does not respond", exc_info=error)
        return database_unavailable(request)


class AllowedHost:
    """Rejects a Host that is not in REGISTRY_ALLOWED_HOSTS; Django would log a traceback for each request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on, or respond with 400."""
        try:
            request.get_host()
        except DisallowedHost:
            host = request.META.get("HTTP_HOST", "")[:_HOST_SHOWN]
            logger.warning("rejected a request for the host %r, which is not in REGISTRY_ALLOWED_HOSTS", host)
            return host_not_allowed(request)
        return self._get_response(request)
