"""Uploads of blobs: in one request, streamed, chunked, or by mount (OCI 49-86)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar
from uuid import UUID

from registry_data.http.app_context import AppContext
from registry_data.http.authentication import credentials
from registry_data.http.messages import Request, Response, content_length
from registry_data.http.routes import Route
from registry_data.oci.digest import CANONICAL, Digest, check_algorithm
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.ranges import parse_content_range
from registry_data.oci.reference import Repository, parse_repository
from registry_data.registry import mounts, upload_sessions, uploads
from registry_data.registry.authorization import require_push
from registry_data.registry.upload_sessions import Purpose, Upload
from registry_data.registry.uploads import OpenUpload, UploadMoved

T = TypeVar("T")

# A small body that arrives within this time is stored in one step, in one thread. A slower one locks its
# upload meanwhile, so that no other request writes to it (OCI 75).
_AT_ONCE: Final = 0.05  # seconds


async def start(plane: AppContext, request: Request, route: Route) -> Response:
    """Mount a blob, store one from the body, or start an upload session (OCI 49-56, 80-86)."""
    repository = parse_repository(route.name)
    whole = _digest(request) if "digest" in request.query else None
    if request.query.get("mount") and await _mounted(plane, request, repository):
        return _created(repository, Digest.parse(request.query["mount"]))
    algorithm = request.query.get("digest-algorithm") or (whole.algorithm if whole else CANONICAL)
    check_algorithm(algorithm)
    pusher = await plane.bridge.read(None, require_push, credentials(request), repository)
    session_id = await plane.bridge.run(upload_sessions.start, pusher, algorithm=algorithm, store=plane.store)
    if whole is not None and "mount" not in request.query:
        try:
            return await _finish(plane, request, repository, session_id, whole)
        except BaseException:
            with suppress(ProtocolError):  # the worker removes expired sessions
                await plane.bridge.run(
                    upload_sessions.drop, credentials(request), repository, session_id, store=plane.store
                )
            raise
    return _session(HTTPStatus.ACCEPTED, repository, session_id, 0)


async def _mounted(plane: AppContext, request: Request, repository: Repository) -> bool:
    digest = Digest.parse(request.query["mount"])
    source = request.query.get("from")
    try:
        parsed = parse_repository(source) if source else None
    except ProtocolError:
        return False  # an invalid source means an upload, not an error (OCI 81)
    return await plane.bridge.run(mounts.mount, credentials(request), repository, digest, source=parsed)


async def append(plane: AppContext, request: Request, route: Route) -> Response:
    """Append a chunk to an upload (OCI 61-68)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    if (small := await request.body_at_once(plane.config.piece_size, _AT_ONCE)) is not None:
        take = partial(uploads.append_small, small)
        offset = await _at_its_end(plane, request, repository, session_id, take)
        return _session(HTTPStatus.ACCEPTED, repository, session_id, offset)
    held = await _open(plane, request, repository, session_id)
    try:
        await _pump(plane, request, held)
        _check_length(request, held)
    except ProtocolError:
        await plane.bridge.run(uploads.rollback, held)
        raise
    except BaseException:
        # The client disconnected, or the server stops: the upload can be resumed after the bytes that arrived
        # (OCI 73).
        await plane.bridge.run(uploads.save_progress, held)
        raise
    offset = await plane.bridge.run(uploads.save_progress, held)
    return _session(HTTPStatus.ACCEPTED, repository, session_id, offset)


async def finish(plane: AppContext, request: Request, route: Route) -> Response:
    """Append the rest of an upload and close it (OCI 55-60, 66, 78)."""
    repository, session_id, digest = parse_repository(route.name), _session_id(route), _digest(request)
    try:
        return await _finish(plane, request, repository, session_id, digest)
    except ProtocolError as error:
        again = error.code is ErrorCode.BLOB_UPLOAD_UNKNOWN and await plane.bridge.run(
            upload_sessions.already_stored, credentials(request), repository, digest
        )
        if not again:
            raise
        return _created(repository, digest)  # the first response was lost (OCI 166)


async def _finish(
    plane: AppContext, request: Request, repository: Repository, session_id: UUID, digest: Digest
) -> Response:
    if (small := await request.body_at_once(plane.config.piece_size, _AT_ONCE)) is not None:
        take_all = partial(uploads.finish_small, small, digest)
        rest = await _at_its_end(plane, request, repository, session_id, take_all)
        if rest is not None:
            await _close(plane, rest, digest)
        return _created(repository, digest)
    held = await _open(plane, request, repository, session_id)
    try:
        there = held.writer.is_published and await plane.bridge.run(
            uploads.already_published, held, digest, store=plane.store
        )
        if not there:
            await _pump(plane, request, held)
            _check_length(request, held)
        # Authorized again: the body may have taken hours (invariant 5).
        await _find(plane, request, repository, session_id, upload_sessions.TO_WRITE)
    except BaseException:
        # A retry begins at the offset at which this request began (OCI 72).
        await plane.bridge.run(uploads.rollback, held)
        raise
    await _close(plane, held, digest)
    return _created(repository, digest)


async def _close(plane: AppContext, held: OpenUpload, digest: Digest) -> None:
    """Close the upload. If its bytes must be read again for the digest, few requests do so at a time."""
    if held.digest(digest.algorithm) is None:
        try:
            async with plane.rehash_slots:
                await plane.bridge.run_bytes(uploads.rehash, held, digest, store=plane.store)
        except BaseException:
            await plane.bridge.run(uploads.rollback, held)
            raise
    await plane.bridge.run(uploads.finish, held, digest, store=plane.store)


async def status(plane: AppContext, request: Request, route: Route) -> Response:
    """Return the offset of an upload (OCI 69)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    upload = await _find(plane, request, repository, session_id, upload_sessions.TO_LOOK)
    offset = await plane.bridge.run(upload_sessions.status, upload, store=plane.store)
    return _session(HTTPStatus.NO_CONTENT, repository, session_id, offset)


async def cancel(plane: AppContext, request: Request, route: Route) -> Response:
    """Cancel an upload (OCI 71)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    upload = await _find(plane, request, repository, session_id, upload_sessions.TO_CANCEL)
    await plane.bridge.run(upload_sessions.cancel, upload, store=plane.store)
    return Response(HTTPStatus.NO_CONTENT)


async def _at_its_end(
    plane: AppContext, request: Request, repository: Repository, session_id: UUID, take: Callable[..., T]
) -> T:
    """Run a use case that opens an upload at the offset of Content-Range, or at its end."""
    upload = await _find(plane, request, repository, session_id, upload_sessions.TO_WRITE)
    try:
        at = _first_byte(request)
    except ProtocolError as error:
        if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            offset = await plane.bridge.run(upload_sessions.status, upload, store=plane.store)
            error.headers |= _progress(repository, session_id, offset)
        raise
    try:
        return await plane.bridge.run(take, upload, at=at, store=plane.store)
    except UploadMoved as error:
        error.headers |= _progress(repository, session_id, error.offset)
        raise


async def _find(
    plane: AppContext, request: Request, repository: Repository, session_id: UUID, purpose: Purpose
) -> Upload:
    return await plane.bridge.read(
        None, upload_sessions.find, credentials(request), repository, session_id, purpose=purpose
    )


async def _open(plane: AppContext, request: Request, repository: Repository, session_id: UUID) -> OpenUpload:
    take = partial(uploads.open_upload, coming=content_length(request) or 0)
    return await _at_its_end(plane, request, repository, session_id, take)


def _first_byte(request: Request) -> int | None:
    """The first byte of Content-Range, None without one; its length must match Content-Length (OCI 67)."""
    header = request.headers.get("content-range")
    first, last = parse_content_range(header) if header else (None, None)
    length = content_length(request)
    if first is not None and last is not None and length not in (None, last - first + 1):
        raise ProtocolError(
            ErrorCode.SIZE_INVALID,
            f"Content-Range has {last - first + 1} bytes, Content-Length {length}",
        )
    return first


async def _pump(plane: AppContext, request: Request, held: OpenUpload) -> None:
    """Hash and write each piece in two threads while the next one arrives: at most two pieces in memory."""
    working: asyncio.Future[tuple[None, None]] | None = None
    with plane.upload_buffers.lease() as size:
        try:
            async for piece in request.pieces(size):
                if working is not None:
                    await working
                working = asyncio.gather(
                    plane.bridge.run_bytes(held.hash, piece), plane.bridge.run_bytes(held.store, piece)
                )
        finally:
            try:
                if working is not None:
                    await working
            finally:
                working = None  # or an error would hold this frame by it, and so the connection: see Bridge


def _check_length(request: Request, held: OpenUpload) -> None:
    """Check the length of the body, which may end early without the end of the connection (OCI 58, 67)."""
    header = request.headers.get("content-range")
    if header is None:
        return
    _, last = parse_content_range(header)
    if held.writer.offset != last + 1:
        raise ProtocolError(
            ErrorCode.SIZE_INVALID, f"Content-Range ends at byte {last}, the body at {held.writer.offset - 1}"
        )


def _digest(request: Request) -> Digest:
    value = request.query.get("digest")
    if not value:
        raise ProtocolError(
            ErrorCode.DIGEST_INVALID, "the digest of the content is missing: add ?digest=sha256:<hex>"
        )
    return Digest.parse(value)


def _session_id(route: Route) -> UUID:
    try:
        return UUID(route.reference)
    except ValueError as error:
        raise ProtocolError(ErrorCode.BLOB_UPLOAD_UNKNOWN) from error


def _progress(repository: Repository, session_id: UUID, offset: int) -> dict[str, str]:
    return {
        "location": f"/v2/{repository}/blobs/uploads/{session_id}",
        "docker-upload-uuid": str(session_id),
        # Docker's form: inclusive, and 0-0 for an empty upload.
        "range": f"0-{max(offset - 1, 0)}",
    }


def _session(status: HTTPStatus, repository: Repository, session_id: UUID, offset: int) -> Response:
    return Response(status, _progress(repository, session_id, offset))


def _created(repository: Repository, digest: Digest) -> Response:
    headers = {"location": f"/v2/{repository}/blobs/{digest}", "docker-content-digest": str(digest)}
    return Response(HTTPStatus.CREATED, headers)
