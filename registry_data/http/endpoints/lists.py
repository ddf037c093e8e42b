"""GET and HEAD of lists: tags, repositories, referrers."""

import json
from http import HTTPStatus
from typing import Final

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.messages import Request, Response
from registry_data.http.routes import Route
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.media_types import OCI_INDEX
from registry_data.oci.paging import next_link, parse_page
from registry_data.oci.reference import parse_repository
from registry_data.registry import lists

_INDEX_START: Final = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}",'.encode()


async def tags(context: AppContext, request: Request, route: Route) -> Response:
    """Send a page of tags, ordered by their bytes (OCI 116-120)."""
    repository = parse_repository(route.name)
    query = request.query
    page = parse_page(query.get("n"), query.get("last"), maximum=context.config.page_size)
    found = await context.bridge.read(
        request.dependencies, lists.tags, credentials(request), repository, page
    )
    headers = {"content-type": "application/json"}
    if found.has_more:
        headers["link"] = next_link(f"/v2/{repository}/tags/list", page.n, found.names[-1])
    body = _json({"name": str(repository), "tags": found.names})
    return Response(HTTPStatus.OK, headers, body, cacheable_until=found.cacheable_until)


async def catalog(context: AppContext, request: Request, route: Route) -> Response:
    """Send a page of the repositories that the caller has a role on (OCI 121)."""
    query = request.query
    page = parse_page(query.get("n"), query.get("last"), maximum=context.config.page_size)
    found = await context.bridge.run(lists.catalog, credentials(request), page)
    request.dependencies.add(found.scopes)
    headers = {"content-type": "application/json"}
    if found.has_more:
        headers["link"] = next_link("/v2/_catalog", page.n, found.names[-1])
    body = _json({"repositories": found.names})
    return Response(HTTPStatus.OK, headers, body, cacheable_until=found.cacheable_until)


async def referrers(context: AppContext, request: Request, route: Route) -> Response:
    """Send a page of the manifests that refer to a subject, as an image index (OCI 123-128)."""
    subject, query = Digest.parse(route.reference), request.query
    artifact_type = _artifact_type(query.get("artifactType"))
    headers = {"content-type": OCI_INDEX, "cache-control": "private, no-cache"}
    if artifact_type is not None:
        headers["oci-filters-applied"] = "artifactType"
    try:
        repository = parse_repository(route.name)
    except ProtocolError as error:
        if error.code is not ErrorCode.NAME_UNKNOWN:
            raise
        return Response(HTTPStatus.OK, headers, _index(b""))  # no repository can have this name (OCI 124)
    page = parse_page(query.get("n"), None, maximum=context.config.page_size)
    found = await context.bridge.read(
        request.dependencies,
        lists.referrers,
        credentials(request),
        repository,
        subject,
        artifact_type=artifact_type,
        after=_number(query.get("last")),
        limit=page.n,
    )
    if found.page is not None and found.page.has_more:
        kept = {} if artifact_type is None else {"artifactType": artifact_type}
        path = f"/v2/{repository}/referrers/{subject}"
        headers["link"] = next_link(path, page.n, str(found.page.last), kept)
    descriptors = found.descriptors
    if descriptors is None and found.page is not None:
        descriptors = await context.bridge.run(lists.read_descriptors, found.page)
    return Response(HTTPStatus.OK, headers, _index(descriptors or b""), cacheable_until=found.cacheable_until)


def _artifact_type(value: str | None) -> str | None:
    """The artifact type to filter by. Types contain no space: it was an unencoded `+`, as in `a/b+json`."""
    return value.replace(" ", "+") if value else None


def _number(last: str | None) -> int:
    """The cursor of a page; a value that this registry never sends means the first page."""
    return int(last) if last and last.isascii() and last.isdigit() and len(last) < 19 else 0


def _index(descriptors: bytes) -> bytes:
    """The image index that lists these descriptors, which are JSON already."""
    return b'%s"manifests":[%s]}' % (_INDEX_START, descriptors)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
