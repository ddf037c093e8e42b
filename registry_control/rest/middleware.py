"""What every answer of the control plane has."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from django.core.exceptions import DisallowedHost
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from registry_control.common import request_context
from registry_control.rest.errors import database_away, host_not_allowed

logger = logging.getLogger(__name__)

_HOST_SHOWN = 100  # characters of a refused Host in the log


class RequestId:
    """Puts the request's id on its response, and into the log for each failure.

    The server has started the request's context already (`serving.request_log`), unless another one runs
    Django.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Respond, with the id."""
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
        user = getattr(request, "_cached_user", None)  # Django's, if the request needed its session
        if user is not None and user.is_authenticated:
            context.principal = f"user:{user.pk}"
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.error("request %s was answered with %d", context.request_id, response.status_code)
        return response


class DatabaseAway:
    """Says so where a page could not be made because the database did not answer, or somebody held a row."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer as ever."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponseBase | None:
        """Answer for a view; those of the API have their own words (`errors.handle`)."""
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        logger.error("the database did not answer", exc_info=error)
        return database_away(request)


class AllowedHost:
    """Refuses a Host that is not in REGISTRY_ALLOWED_HOSTS; Django would log a traceback for each."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on, or answer 400."""
        try:
            request.get_host()
        except DisallowedHost:
            host = request.META.get("HTTP_HOST", "")[:_HOST_SHOWN]
            logger.warning(
                "refused a request for the host %r, which REGISTRY_ALLOWED_HOSTS does not have", host
            )
            return host_not_allowed(request)
        return self._get_response(request)
