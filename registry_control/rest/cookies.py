"""The `Secure` attribute of cookies."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase


class SecureCookies:
    """Middleware: cookies of a response to an https request return over https only.

    `Origin` also tells that the browser uses https, where a proxy does not forward the scheme.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Set the attribute."""
        response = self._get_response(request)
        if request.is_secure() or request.headers.get("Origin", "").startswith("https://"):
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response
