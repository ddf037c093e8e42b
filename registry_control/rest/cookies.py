"""The `Secure` attribute of cookies."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase


class SecureCookies:
    """Middleware that sets `Secure` on cookies if the browser uses https.

    `Origin` shows that as well where a proxy does not forward the scheme.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Add the attribute to the response."""
        response = self._get_response(request)
        if request.is_secure() or request.headers.get("Origin", "").startswith("https://"):
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response
