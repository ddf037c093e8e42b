"""Lists the extensions of the registry, by the discovery extension of the specification (OCI 178)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.endpoints.service import check_login
from registry_data.http.messages import Request, Response
from registry_data.http.routes import Route
from registry_data.oci.reference import parse_repository
from registry_data.registry import service

_OCI: Final = {
    "name": "_oci",
    "url": "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
    "description": "lists extensions",
    "endpoints": ["_oci/ext/discover"],
}
_CATALOG: Final = {
    "name": "_catalog",
    "url": "https://distribution.github.io/distribution/spec/api/#listing-repositories",
    "description": "lists the repositories that the caller has a role on",
    "endpoints": ["_catalog"],
}


async def of_registry(context: AppContext, request: Request, route: Route) -> Response:
    """List the extensions of the registry; any login suffices."""
    await check_login(context, request)
    return _listing(_OCI, _CATALOG)


async def of_repository(context: AppContext, request: Request, route: Route) -> Response:
    """List the extensions of a repository; the caller needs the right to pull."""
    repository = parse_repository(route.name)
    await context.bridge.read(request.dependencies, service.check_readable, credentials(request), repository)
    return _listing(_OCI)


def _listing(*extensions: Mapping[str, object]) -> Response:
    body = json.dumps({"extensions": extensions}).encode()
    return Response(HTTPStatus.OK, {"content-type": "application/json"}, body)
