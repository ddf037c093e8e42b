"""The Authorization header and the WWW-Authenticate challenge (OCI 146-149)."""

from typing import Final

from registry_data.config import Config
from registry_data.http.messages import Request
from registry_data.oci.basic_auth import basic_password
from registry_data.registry.authorization import AccessDenied, Credentials

_NOTHING: Final = Credentials()
# Characters; every token that the registry issues is shorter, and verifying a longer one would waste time.
_LIMIT: Final = 64 * 1024


def credentials(request: Request) -> Credentials:
    """The credentials of a request. An unknown scheme counts as a wrong secret key, not as anonymous."""
    header = request.headers.get("authorization")
    if not header:
        return _NOTHING
    scheme, _, value = header[:_LIMIT].partition(" ")
    if scheme.lower() == "bearer":
        return Credentials(token=value.strip())
    if scheme.lower() == "basic":
        password = basic_password(header[:_LIMIT])
        return Credentials(secret=password) if password else _NOTHING
    return Credentials(secret=header[:_LIMIT])


def realm(request: Request, config: Config) -> str:
    """The URL of the token endpoint (OCI 14, 163): at the configured origin, or else at the request's."""
    origin = config.public_origin or f"{request.scheme}://{request.headers.get('host') or config.public_host}"
    return f"{origin}/token"


def challenge(denied: AccessDenied, request: Request, config: Config) -> str | None:
    """The WWW-Authenticate header of a denied request; None if other credentials would not help."""
    if denied.challenge is None:
        return None
    if config.challenges_with_basic:
        return f'Basic realm="{config.service}", charset="UTF-8"'
    parameters = {"realm": realm(request, config), "service": config.service, **denied.challenge}
    if "error" in denied.challenge:
        # docker shows this instead of the body's message (RFC 6750, section 3).
        parameters["error_description"] = denied.message
    return "Bearer " + ",".join(f'{name}="{_quotable(value)}"' for name, value in parameters.items())


def _quotable(value: str) -> str:
    return "".join(character for character in value if " " <= character <= "~" and character not in '"\\')
