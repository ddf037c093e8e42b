"""Endpoints that concern no repository: the root, ping, tokens, signing keys, health."""

import asyncio
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.messages import Idle, Request, Response
from registry_data.http.routes import Route
from registry_data.oci.basic_auth import basic_password
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.registry import service
from registry_data.registry.authorization import AccessDenied, Credentials

_FORM_LIMIT = 64 * 1024  # bytes; a form with a hundred scopes is much shorter
_JSON = {"content-type": "application/json"}
_UNCACHED = {**_JSON, "cache-control": "no-store"}


_ROOT = """Stowage, a container registry.

This address is for clients such as docker:

  docker login {host}
  docker push {host}/<namespace>/<image>:<tag>
  docker pull {host}/<namespace>/<image>:<tag>

The user name does not matter; the password is the secret key of an API key.
"""


async def root(context: AppContext, request: Request, route: Route) -> Response:
    """Tell people who open the address in a browser what it is."""
    headers = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache"}
    body = _ROOT.format(host=request.headers.get("host") or context.config.public_host)
    return Response(HTTPStatus.OK, headers, body.encode())


async def ping(context: AppContext, request: Request, route: Route) -> Response:
    """Confirm that this is a registry; any valid login suffices (OCI 27-29).

    Anonymous callers get 401 even if there are public images: clients learn the challenge only from this
    response.
    """
    await check_login(context, request)
    return Response(HTTPStatus.OK, _JSON, b"{}")


async def check_login(context: AppContext, request: Request) -> None:
    """Require valid credentials.

    Raises:
        AccessDenied: there are no credentials, or invalid ones.
    """
    caller = credentials(request)
    if caller == Credentials():
        raise AccessDenied(ErrorCode.UNAUTHORIZED, None, {})
    await context.bridge.read(request.dependencies, service.check_login, caller)


async def token_by_get(context: AppContext, request: Request, route: Route) -> Response:
    """Issue a token; without an Authorization header for an anonymous caller (OCI 150-153, 157)."""
    parameters: dict[str, list[str]] = {}
    for name, value in request.query.multi_items():  # `getlist` for each name would take quadratic time
        parameters.setdefault(name, []).append(value)
    password = basic_password(request.headers.get("authorization", ""))
    return _token(await context.bridge.run(service.token, parameters, password))


async def token_by_post(context: AppContext, request: Request, route: Route) -> Response:
    """Issue a token for an OAuth2 form (OCI 155)."""
    try:
        # Callers are not authenticated yet, so the time for the whole form is limited, not only the pauses.
        async with asyncio.timeout(context.config.idle_time):
            body = await _form(request)
    except TimeoutError:
        raise Idle from None
    try:
        form = parse_qs(body.decode(), keep_blank_values=True)
    except (UnicodeDecodeError, ValueError) as error:
        raise ProtocolError(
            ErrorCode.UNSUPPORTED,
            "the form is malformed; send it URL-encoded in UTF-8",
            status=HTTPStatus.BAD_REQUEST,
        ) from error
    return _token(await context.bridge.run(service.token_by_form, form))


async def _form(request: Request) -> bytes:
    body = bytearray()
    async for part in request.body():
        body += part
        if len(body) > _FORM_LIMIT:
            raise ProtocolError(
                ErrorCode.SIZE_INVALID, f"the form is too large; {_FORM_LIMIT} bytes at most are allowed"
            )
    return bytes(body)


def _token(result: tuple[HTTPStatus, dict[str, Any]]) -> Response:
    status, body = result
    headers = {**_UNCACHED, "www-authenticate": 'Basic realm="stowage"'} if status == 401 else _UNCACHED
    return Response(status, headers, json.dumps(body).encode())


async def keys(context: AppContext, request: Request, route: Route) -> Response:
    """Publish the public keys of the token signatures as a JWK set (RFC 7517)."""
    found = await context.bridge.run(service.keys)
    headers = {**_JSON, "cache-control": "public, max-age=300"}
    return Response(HTTPStatus.OK, headers, json.dumps({"keys": found}).encode())


async def health(context: AppContext, request: Request, route: Route) -> Response:
    """Check the database and the storage; 503 if one of them does not respond."""
    await context.bridge.run(service.check_health, context.store)
    body = json.dumps({"status": "ok", "version": context.config.version})
    return Response(HTTPStatus.OK, _JSON, body.encode())
