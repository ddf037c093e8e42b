"""Authentication of the management API by the header X-Auth-Token."""

from typing import TYPE_CHECKING, Final

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from registry_control.access.errors import BadCredentials, Reason
from registry_control.access.policy import Principal
from registry_control.access.rates import count_anonymous
from registry_control.access.services import authenticate
from registry_control.common.errors import DeniedAuthentication

if TYPE_CHECKING:  # rest_framework.views imports this module
    from rest_framework.views import APIView

_HELP_MESSAGES: Final = {
    Reason.INVALID_ARGUMENT: "X-Auth-Token is not a secret key: those are lower-case UUIDs with hyphens",
    Reason.NOT_FOUND: "no API key has this secret key: the key was deleted, or never existed",
    Reason.EXPIRED: "the API key has expired: create another one",
}


class SecretKeyAuthentication(BaseAuthentication):
    """Sets `request.user` to the Principal that holds the secret key, with its current rights."""

    def authenticate(self, request: Request) -> tuple[Principal, None]:
        """Authenticate the request.

        Raises:
            DeniedAuthentication: the secret key is missing or invalid.
            Throttled: so it was in too many requests from this address.
        """
        secret = self.secret_of(request)
        if not secret:
            count_anonymous(request)
            raise _missing_key(request)
        try:
            return authenticate(secret=secret).principal, None
        except BadCredentials as error:
            count_anonymous(request)
            raise DeniedAuthentication(error.reason, _HELP_MESSAGES[error.reason]) from error

    def secret_of(self, request: Request) -> str:
        """The secret key that a request has; empty if it has none."""
        return request.headers.get("X-Auth-Token", "").strip()

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """The WWW-Authenticate header. Browsers do not prompt for credentials of this scheme."""
        return 'X-Auth-Token realm="stowage"'


class BearerAuthentication(SecretKeyAuthentication):
    """Also accepts the secret key as `Authorization: Bearer`, which Prometheus can send in all versions."""

    def secret_of(self, request: Request) -> str:
        """The secret key in either header."""
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        return super().secret_of(request) or bearer


def _missing_key(request: Request) -> DeniedAuthentication:
    if "X-Session-Token" in request.headers:
        return DeniedAuthentication(
            Reason.INVALID_ARGUMENT,
            "X-Session-Token is not accepted here: send a secret key as X-Auth-Token",
            method="jwt",
        )
    return DeniedAuthentication(Reason.INVALID_ARGUMENT, "send the secret key of an API key as X-Auth-Token")


class IsPrincipal(BasePermission):
    """Requires authentication; the services check the rights of the principal."""

    def has_permission(self, request: Request, view: "APIView") -> bool:  # noqa: ARG002
        """Whether the request is authenticated."""
        return isinstance(request.user, Principal)


def principal_of(request: Request) -> Principal:
    """The principal of a request to a view with the permission class `IsPrincipal`."""
    principal = request.user
    assert isinstance(principal, Principal)  # noqa: S101 - for the type checker
    return principal
