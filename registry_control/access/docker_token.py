"""The Docker token protocol without HTTP, used by the endpoints of both planes (OCI 150-157)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from registry_control.access.errors import BadCredentials, InvalidRefreshToken
from registry_control.access.services import (
    Caller,
    FactsSource,
    IssuedToken,
    authenticate,
    authenticate_refresh_token,
    issue_token,
    refresh_token_of,
)
from registry_data.oci.scopes import format_scope, parse_scopes

_UNAUTHORIZED: Final = (
    "the secret key is unknown, revoked or expired: use one of your API keys as the password"
)
_LOGIN_ENDED: Final = (
    "this login has ended, its API key was revoked or has expired: log in again with another one"
)
UNSUPPORTED_GRANT: Final = {
    "error": "unsupported_grant_type",
    "error_description": "send grant_type=password or grant_type=refresh_token",
}


class UnsupportedGrant(Exception):
    """The grant type is not supported (RFC 6749, section 5.2)."""


def error_body(error: BadCredentials) -> dict[str, Any]:
    """The body of the 401 response to invalid credentials.

    docker shows `message` or `details`, other clients read `errors` (OCI 152).
    """
    message = _LOGIN_ENDED if isinstance(error, InvalidRefreshToken) else _UNAUTHORIZED
    errors = [{"code": "UNAUTHORIZED", "message": message}]
    return {"errors": errors, "message": message, "details": message}


def respond_to_get(
    *, parameters: Mapping[str, Sequence[str]], password: str, facts_of: FactsSource
) -> dict[str, Any]:
    """The body of the response to a GET: a token for the holder of a secret key, or for an anonymous caller.

    The password is the secret key, empty for an anonymous caller. `offline_token=true` requests a refresh
    token as well.

    Raises:
        BadCredentials: the password is not a valid secret key.
    """
    caller = _caller(password)
    issued = issue_token(caller, parse_scopes(parameters.get("scope", ())), facts_of)
    offline = _first(parameters, "offline_token") == "true"
    return {"token": issued.token, **_common_fields(issued), **_refresh_token(caller, wanted=offline)}


def respond_to_post(*, form: Mapping[str, Sequence[str]], facts_of: FactsSource) -> dict[str, Any]:
    """The body of the response to an OAuth2 form with `grant_type` `password` or `refresh_token`.

    `access_type=offline` requests a refresh token as well.

    Raises:
        UnsupportedGrant: another grant type.
        BadCredentials: the password is not a valid secret key.
        InvalidRefreshToken: the refresh token is malformed, or its API key was deleted or has expired.
    """
    caller = _caller_of_form(form)
    issued = issue_token(caller, parse_scopes(form.get("scope", ())), facts_of)
    scope = " ".join(map(format_scope, issued.scopes))
    offline = _first(form, "access_type") == "offline"
    return {"scope": scope, **_common_fields(issued), **_refresh_token(caller, wanted=offline)}


def is_anonymous(form: Mapping[str, Sequence[str]]) -> bool:
    """Whether a form requests a token for an anonymous caller: by an empty password."""
    return list(form.get("grant_type", ())) == ["password"] and not _first(form, "password")


def _caller_of_form(form: Mapping[str, Sequence[str]]) -> Caller:
    match list(form.get("grant_type", ())):
        case ["password"]:
            return _caller(_first(form, "password"))
        case ["refresh_token"]:
            return authenticate_refresh_token(_first(form, "refresh_token"))
        case _:
            raise UnsupportedGrant


def _first(values: Mapping[str, Sequence[str]], name: str) -> str:
    return next(iter(values.get(name, ())), "")


def _refresh_token(caller: Caller, *, wanted: bool) -> dict[str, str]:
    token = refresh_token_of(caller) if wanted else None
    return {} if token is None else {"refresh_token": token}


def _caller(secret: str) -> Caller:
    return authenticate(secret=secret or None)


def _common_fields(issued: IssuedToken) -> dict[str, Any]:
    return {
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
