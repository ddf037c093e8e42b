"""GET, HEAD, PUT and DELETE of manifests."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.conditions import check_match, not_modified, preconditions
from registry_data.http.messages import Request, Response, content_length
from registry_data.http.path_parameters import reference_to_read
from registry_data.http.routes import Route
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.manifest import MANIFEST_SIZE_LIMIT, manifest_too_large
from registry_data.oci.reference import Tag, parse_reference, parse_repository, parse_tag
from registry_data.registry import manifests
from registry_data.registry.authorization import require_push

# A manifest of at most this size is read before the caller is authorized, if it has already arrived: one
# query instead of two.
_SMALL: Final = 64 * 1024  # bytes
_ARRIVAL_TIME: Final = 0.05  # seconds
IMMUTABLE: Final = "private, max-age=31536000, immutable"
_SHOWN_MISSING: Final = 20  # digests have up to 135 characters, a Warning header 4096 bytes
REVALIDATE: Final = "private, no-cache"


async def get(context: AppContext, request: Request, route: Route) -> Response:
    """Send a manifest exactly as it was pushed; Accept is ignored (OCI 30-36).

    A HEAD, or a 304, counts as a pull too: clients that have the content send nothing else (ADR 61).
    """
    repository, reference = parse_repository(route.name), reference_to_read(route)
    with_payload = request.method == "GET"
    find = partial(manifests.get, credentials(request), repository, reference, with_payload=with_payload)
    try:
        found = await _with_payload(context, await context.bridge.read(request.dependencies, find))
    except manifests.DeletedMeanwhile:  # the tag may have moved to another manifest
        request.dependencies.add(None)
        found = await _with_payload(context, await context.bridge.read(None, find))
    check_match(request, found.digest)
    request.pull = found.pull
    headers = {
        "docker-content-digest": found.digest,
        "etag": f'"{found.digest}"',
        "cache-control": IMMUTABLE if isinstance(reference, Digest) else REVALIDATE,
    }
    if not_modified(request, found.digest):
        return Response(HTTPStatus.NOT_MODIFIED, headers)
    headers |= {"content-type": found.media_type, "content-length": str(found.size)}
    return Response(HTTPStatus.OK, headers, found.payload or b"", cacheable_until=found.cacheable_until)


async def _with_payload(context: AppContext, found: manifests.StoredManifest) -> manifests.StoredManifest:
    """Read a long payload in a thread: the event loop would serve no one else meanwhile."""
    if found.payload is not None:
        return found
    return replace(found, payload=await context.bridge.run(manifests.read_payload, found))


async def put(context: AppContext, request: Request, route: Route) -> Response:
    """Store a manifest, under a tag, or under its digest with any number of tags (OCI 87-110)."""
    repository, reference = parse_repository(route.name), parse_reference(route.reference)
    more_tags = _more_tags(request)
    caller = credentials(request)
    small = await request.body_at_once(_SMALL, _ARRIVAL_TIME)
    pusher = await context.bridge.read(request.dependencies, require_push, caller, repository)
    if small is not None:
        payload = small
    else:
        payload = await _payload(request)
        # Authorized again: the body may have taken minutes (invariant 5).
        pusher = await context.bridge.read(None, require_push, caller, repository)
    pushed = await context.bridge.run(
        manifests.put,
        pusher,
        reference,
        payload=payload,
        content_type=request.headers.get("content-type"),
        more_tags=more_tags,
        store=context.store,
        only_if=preconditions(request, route.reference),
    )
    headers = {
        "location": f"/v2/{repository}/manifests/{pushed.digest}",
        "docker-content-digest": str(pushed.digest),
    }
    if pushed.subject is not None:
        headers["oci-subject"] = str(pushed.subject)
    if pushed.missing:
        headers["warning"] = _sparse(pushed.missing)
    if more_tags:
        headers["oci-tag"] = ", ".join(pushed.tags)
    return Response(HTTPStatus.CREATED, headers)


def _sparse(missing: Sequence[str]) -> str:
    """The Warning header of a sparse index: the manifests that cannot be pulled (OCI 15, 104)."""
    shown = ", ".join(missing[:_SHOWN_MISSING]) + (", ..." if len(missing) > _SHOWN_MISSING else "")
    return f'299 - "the index is stored without {len(missing)} of its manifests: {shown}"'


def _more_tags(request: Request) -> list[Tag]:
    values = request.query.getlist("tag")
    if len(values) > manifests.TAGS_PER_PUSH:
        message = f"at most {manifests.TAGS_PER_PUSH} tags are allowed in one request"
        raise ProtocolError(ErrorCode.TAG_INVALID, message, status=HTTPStatus.REQUEST_URI_TOO_LONG)
    return [parse_tag(value) for value in values]


async def _payload(request: Request) -> bytes:
    if (content_length(request) or 0) > MANIFEST_SIZE_LIMIT:
        raise manifest_too_large()
    payload = bytearray()
    async for part in request.body():
        payload += part
        if len(payload) > MANIFEST_SIZE_LIMIT:  # a chunked body has no Content-Length
            raise manifest_too_large()
    return bytes(payload)


async def delete(context: AppContext, request: Request, route: Route) -> Response:
    """Delete a tag, or a manifest by its digest together with its tags (OCI 134-135)."""
    await context.bridge.run(
        manifests.delete,
        credentials(request),
        parse_repository(route.name),
        reference_to_read(route),
        only_if=preconditions(request, route.reference),
    )
    return Response(HTTPStatus.ACCEPTED)
