"""The Docker token protocol, GET and POST, without HTTP: both planes answer with it (checklist 150-157)."""

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

_WRONG: Final = "the secret key is unknown, revoked or expired: use one of your API keys as the password"
_ENDED: Final = "this login has ended, its API key was revoked or has expired: log in again with another one"
UNSUPPORTED_GRANT: Final = {
    "error": "unsupported_grant_type",
    "error_description": "send grant_type=password or grant_type=refresh_token",
}


class UnsupportedGrant(Exception):
    """A grant type that this registry does not give (RFC 6749, section 5.2)."""


def refusal(error: BadCredentials) -> dict[str, Any]:
    """The body of the 401 for credentials that prove nobody.

    docker shows `message` or `details`, others read `errors` (checklist 152).
    """
    said = _ENDED if isinstance(error, InvalidRefreshToken) else _WRONG
    errors = [{"code": "UNAUTHORIZED", "message": said}]
    return {"errors": errors, "message": said, "details": said}


def answer_get(
    *, parameters: Mapping[str, Sequence[str]], basic: tuple[str, str] | None, facts_of: FactsSource
) -> dict[str, Any]:
    """Answer a GET: a token for the holder of a secret key, or for nobody.

    Any user name will do; an empty password is nobody. `offline_token=true` asks for a refresh token too.

    Raises:
        BadCredentials: the password is no secret key that stands.
    """
    caller = _caller(basic[1] if basic else "")
    issued = issue_token(caller, parse_scopes(parameters.get("scope", ())), facts_of)
    offline = _one(parameters, "offline_token") == "true"
    return {"token": issued.token, **_common(issued), **_refresh(caller, wanted=offline)}


def answer_post(*, form: Mapping[str, Sequence[str]], facts_of: FactsSource) -> dict[str, Any]:
    """Answer a POST of the OAuth2 form with `grant_type` `password` or `refresh_token`.

    `access_type=offline` asks for a refresh token too.

    Raises:
        UnsupportedGrant: any other grant type.
        BadCredentials: the password is no secret key that stands.
        LoginEnded: the refresh token's key does not stand any more.
    """
    caller = _granted_to(form)
    issued = issue_token(caller, parse_scopes(form.get("scope", ())), facts_of)
    scope = " ".join(map(format_scope, issued.scopes))
    offline = _one(form, "access_type") == "offline"
    return {"scope": scope, **_common(issued), **_refresh(caller, wanted=offline)}


def _granted_to(form: Mapping[str, Sequence[str]]) -> Caller:
    match list(form.get("grant_type", ())):
        case ["password"]:
            return _caller(_one(form, "password"))
        case ["refresh_token"]:
            return authenticate_refresh_token(_one(form, "refresh_token"))
        case _:
            raise UnsupportedGrant


def _one(values: Mapping[str, Sequence[str]], name: str) -> str:
    return next(iter(values.get(name, ())), "")


def _refresh(caller: Caller, *, wanted: bool) -> dict[str, str]:
    token = refresh_token_of(caller) if wanted else None
    return {} if token is None else {"refresh_token": token}


def _caller(secret: str) -> Caller:
    return authenticate(secret=secret or None)


def _common(issued: IssuedToken) -> dict[str, Any]:
    return {
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
