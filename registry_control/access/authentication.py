"""Who calls the management API: the header X-Auth-Token, and nothing else."""

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

_HELP: Final = {
    Reason.INVALID_ARGUMENT: "X-Auth-Token is no secret key: those are lower-case UUIDs with hyphens",
    Reason.NOT_FOUND: "no API key has this secret key: it was deleted, or never was",
    Reason.EXPIRED: "the API key has expired: create another one",
}


class SecretKeyAuthentication(BaseAuthentication):
    """The caller's secret key makes `request.user` the Principal, with the rights of this moment."""

    def authenticate(self, request: Request) -> tuple[Principal, None]:
        """Find the key's holder.

        Raises:
            DeniedAuthentication: there is no valid key.
            Throttled: and the client's address has sent too many such requests.
        """
        secret = request.headers.get("X-Auth-Token", "").strip()
        if not secret:
            count_anonymous(request)
            raise _nothing_usable(request)
        try:
            return authenticate(secret=secret).principal, None
        except BadCredentials as error:
            count_anonymous(request)
            raise DeniedAuthentication(error.why, _HELP[error.why]) from error

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        """Name the scheme; browsers know no such one, so none asks for a password."""
        return 'X-Auth-Token realm="stowage"'


def _nothing_usable(request: Request) -> DeniedAuthentication:
    if "X-Session-Token" in request.headers:
        return DeniedAuthentication(
            Reason.INVALID_ARGUMENT,
            "X-Session-Token is not accepted here: send a secret key as X-Auth-Token",
            method="jwt",
        )
    return DeniedAuthentication(Reason.INVALID_ARGUMENT, "send the secret key of an API key as X-Auth-Token")


class IsPrincipal(BasePermission):
    """Nobody gets in without a principal; what one may do is for the services to decide."""

    def has_permission(self, request: Request, view: "APIView") -> bool:  # noqa: ARG002
        """Look whether there is one."""
        return isinstance(request.user, Principal)


def principal_of(request: Request) -> Principal:
    """The caller of a view that `IsPrincipal` guards."""
    principal = request.user
    assert isinstance(principal, Principal)  # noqa: S101 - tells the type checker what the guard sees to
    return principal
