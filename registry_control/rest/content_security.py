"""The Content-Security-Policy of every response."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from registry_control.rest.errors import PAGES

HEADER: Final = "Content-Security-Policy"
_PAGES_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_OTHER_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
_DOCS: Final = "/api/docs/"


class ContentSecurityPolicy:
    """Middleware: pages may load scripts, styles and fonts from this server only, and none inline."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Add the header."""
        response = self._get_response(request)
        is_page = request.path.startswith((PAGES, _DOCS))
        response.headers[HEADER] = _PAGES_POLICY if is_page else _OTHER_POLICY
        return response
