"""The Docker token protocol, GET and POST, without HTTP: both planes answer with it (checklist 150-157)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from registry_control.access.services import Caller, FactsSource, IssuedToken, authenticate, issue_token
from registry_data.oci.scopes import format_scope, parse_scopes

_WRONG: Final = "the secret key is unknown, revoked or expired: use one of your API keys as the password"
# docker shows `message` or `details`, others read `errors` (checklist 152).
WRONG_CREDENTIALS: Final = {
    "errors": [{"code": "UNAUTHORIZED", "message": _WRONG, "detail": {}}],
    "message": _WRONG,
    "details": _WRONG,
}
UNSUPPORTED_GRANT: Final = {"error": "unsupported_grant_type"}


class UnsupportedGrant(Exception):
    """A grant type that this registry does not give (RFC 6749, section 5.2)."""


def answer_get(
    *, parameters: Mapping[str, Sequence[str]], basic: tuple[str, str] | None, facts_of: FactsSource
) -> dict[str, Any]:
    """Answer a GET: a token for the holder of a secret key, or for nobody.

    Any user name will do; an empty password is nobody.

    Raises:
        BadCredentials: the password is no secret key that stands.
    """
    caller = _caller(basic[1] if basic else "")
    issued = issue_token(caller, parse_scopes(parameters.get("scope", ())), facts_of)
    return {"token": issued.token, **_common(issued)}


def answer_post(*, form: Mapping[str, Sequence[str]], facts_of: FactsSource) -> dict[str, Any]:
    """Answer a POST of the OAuth2 form with `grant_type=password`.

    Raises:
        UnsupportedGrant: any other grant type.
        BadCredentials: the password is no secret key that stands.
    """
    if list(form.get("grant_type", ())) != ["password"]:
        raise UnsupportedGrant
    caller = _caller(next(iter(form.get("password", ())), ""))
    issued = issue_token(caller, parse_scopes(form.get("scope", ())), facts_of)
    return {"scope": " ".join(map(format_scope, issued.scopes)), **_common(issued)}


def _caller(secret: str) -> Caller:
    return authenticate(secret=secret or None)


def _common(issued: IssuedToken) -> dict[str, Any]:
    return {
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
