"""GET, HEAD and DELETE of blobs."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Final

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.byteranges import ByteRanges
from registry_data.http.conditions import check_match, not_modified, range_applies
from registry_data.http.endpoints.manifests import IMMUTABLE
from registry_data.http.messages import Request, Response
from registry_data.http.routes import Route
from registry_data.oci.digest import Digest
from registry_data.oci.ranges import ByteRange, parse_ranges
from registry_data.oci.reference import parse_repository
from registry_data.registry import blobs
from registry_data.storage.base import SignsUrls, SizedReader

_PIECE_OF_SEVERAL: Final = 128 * 1024  # bytes
# Time to follow the redirect; a transfer that has begun may take longer.
_URL_LIFE: Final = timedelta(minutes=15)


async def get(context: AppContext, request: Request, route: Route) -> Response:
    """Send a blob, or the ranges of it that are requested (OCI 39-47)."""
    digest = Digest.parse(route.reference)
    repository, caller = parse_repository(route.name), credentials(request)
    found = await context.bridge.read(
        request.dependencies, blobs.find, caller, repository, digest, lease=context.config.blob_lease
    )
    check_match(request, str(digest))
    if request.method == "HEAD" and found.lease_is_due and not context.config.read_only:
        await context.bridge.run(blobs.renew_lease, caller, repository, digest)
    headers = {
        "docker-content-digest": str(digest),
        "etag": f'"{digest}"',
        "cache-control": IMMUTABLE,
        "accept-ranges": "bytes",
    }
    if not_modified(request, str(digest)):
        return Response(HTTPStatus.NOT_MODIFIED, headers)
    headers["content-type"] = "application/octet-stream"
    if request.method == "HEAD":
        headers["content-length"] = str(found.size)
        return Response(HTTPStatus.OK, headers, cacheable_until=found.cacheable_until)
    try:
        return await _content(context, request, str(digest), found, headers)
    except blobs.BrokenContent as error:
        if not context.config.read_only:
            await context.bridge.run(blobs.report, found.key, error)
        raise


async def _content(
    context: AppContext, request: Request, digest: str, found: blobs.StoredBlob, headers: dict[str, str]
) -> Response:
    header = request.headers.get("range") if range_applies(request, digest) else None
    parts = parse_ranges(header, found.size)
    if len(parts) > 1:
        return await _several(context, found, headers, ByteRanges(parts, found.size))
    part = parts[0] if parts else None
    start, stop = (part.start, part.stop) if part else (0, found.size)
    headers["content-length"] = str(stop - start)
    if part is None and found.size <= blobs.SMALL_BLOB:
        content = blobs.recent(found.key)
        if content is None:
            content = await context.bridge.run_bytes(blobs.read_small, context.store, found)
        return Response(HTTPStatus.OK, headers, content, cacheable_until=found.cacheable_until)
    if isinstance(context.store, SignsUrls):
        return _redirect(context.store.url_for(found.key, expires_in=_URL_LIFE), digest)
    if part is None:
        pieces = await context.bridge.run_bytes(blobs.read_whole, context.store, found)
        return Response(HTTPStatus.OK, headers, pieces)
    pieces = await context.bridge.run_bytes(blobs.read, context.store, found.key, start=start, stop=stop)
    headers["content-range"] = part.content_range(found.size)
    return Response(HTTPStatus.PARTIAL_CONTENT, headers, pieces)


def _redirect(location: str, digest: str) -> Response:
    """Redirect to the object store (OCI 48); not cacheable, because the signed URL expires."""
    headers = {"location": location, "docker-content-digest": digest, "cache-control": "no-store"}
    return Response(HTTPStatus.TEMPORARY_REDIRECT, headers)


async def _several(
    context: AppContext, found: blobs.StoredBlob, headers: dict[str, str], ranges: ByteRanges
) -> Response:
    """Send several ranges of a blob in one response (OCI 45)."""

    def read(part: ByteRange) -> Iterator[bytes]:
        reader = blobs.read(context.store, found.key, start=part.start, stop=part.stop)
        if isinstance(reader, SizedReader):
            reader.piece_size = _PIECE_OF_SEVERAL
        return reader

    pieces = await context.bridge.run_bytes(ranges.pieces, read)
    headers |= {"content-type": ranges.content_type, "content-length": str(ranges.length)}
    return Response(HTTPStatus.PARTIAL_CONTENT, headers, pieces)


async def delete(context: AppContext, request: Request, route: Route) -> Response:
    """Delete a blob from this repository (OCI 136)."""
    digest = Digest.parse(route.reference)
    await context.bridge.run(blobs.delete, credentials(request), parse_repository(route.name), digest)
    return Response(HTTPStatus.ACCEPTED)
