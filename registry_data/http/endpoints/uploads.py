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


async def start(context: AppContext, request: Request, route: Route) -> Response:
    """Mount a blob, store one from the body, or start an upload session (OCI 49-56, 80-86)."""
    repository = parse_repository(route.name)
    whole = _digest(request) if "digest" in request.query else None
    if request.query.get("mount") and await _mounted(context, request, repository):
        return _created(repository, Digest.parse(request.query["mount"]))
    algorithm = request.query.get("digest-algorithm") or (whole.algorithm if whole else CANONICAL)
    check_algorithm(algorithm)
    pusher = await context.bridge.read(request.dependencies, require_push, credentials(request), repository)
    session_id = await context.bridge.run(
        upload_sessions.start, pusher, algorithm=algorithm, store=context.store
    )
    if whole is not None and "mount" not in request.query:
        try:
            return await _finish(context, request, repository, session_id, whole)
        except BaseException:
            with suppress(ProtocolError):  # the worker removes expired sessions
                await context.bridge.run(
                    upload_sessions.drop, credentials(request), repository, session_id, store=context.store
                )
            raise
    return _session(HTTPStatus.ACCEPTED, repository, session_id, 0)


async def _mounted(context: AppContext, request: Request, repository: Repository) -> bool:
    digest = Digest.parse(request.query["mount"])
    source = request.query.get("from")
    try:
        parsed = parse_repository(source) if source else None
    except ProtocolError:
        return False  # an invalid source means an upload, not an error (OCI 81)
    return await context.bridge.run(mounts.mount, credentials(request), repository, digest, source=parsed)


async def append(context: AppContext, request: Request, route: Route) -> Response:
    """Append a chunk to an upload (OCI 61-68)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    if (small := await request.body_at_once(context.config.piece_size, _AT_ONCE)) is not None:
        use_case = partial(uploads.append_small, small)
        offset = await _run_at_offset(context, request, repository, session_id, use_case)
        return _session(HTTPStatus.ACCEPTED, repository, session_id, offset)
    upload = await _open(context, request, repository, session_id)
    try:
        await _transfer(context, request, upload)
        _check_length(request, upload)
    except ProtocolError:
        await context.bridge.run(uploads.rollback, upload)
        raise
    except BaseException:
        # The client disconnected, or the server stops: the upload can be resumed after the bytes that arrived
        # (OCI 73).
        await context.bridge.run(uploads.save_progress, upload)
        raise
    offset = await context.bridge.run(uploads.save_progress, upload)
    return _session(HTTPStatus.ACCEPTED, repository, session_id, offset)


async def finish(context: AppContext, request: Request, route: Route) -> Response:
    """Append the rest of an upload and close it (OCI 55-60, 66, 78)."""
    repository, session_id, digest = parse_repository(route.name), _session_id(route), _digest(request)
    try:
        return await _finish(context, request, repository, session_id, digest)
    except ProtocolError as error:
        already_stored = error.code is ErrorCode.BLOB_UPLOAD_UNKNOWN and await context.bridge.run(
            upload_sessions.already_stored, credentials(request), repository, digest
        )
        if not already_stored:
            raise
        return _created(repository, digest)  # the first response was lost (OCI 166)


async def _finish(
    context: AppContext, request: Request, repository: Repository, session_id: UUID, digest: Digest
) -> Response:
    if (small := await request.body_at_once(context.config.piece_size, _AT_ONCE)) is not None:
        use_case = partial(uploads.finish_small, small, digest)
        rest = await _run_at_offset(context, request, repository, session_id, use_case)
        if rest is not None:
            await _close(context, request, repository, rest, digest)
        return _created(repository, digest)
    upload = await _open(context, request, repository, session_id)
    try:
        already_published = upload.writer.is_published and await context.bridge.run(
            uploads.already_published, upload, digest, store=context.store
        )
        if not already_published:
            await _transfer(context, request, upload)
            _check_length(request, upload)
    except BaseException:
        # A retry begins at the offset at which this request began (OCI 72).
        await context.bridge.run(uploads.rollback, upload)
        raise
    await _close(context, request, repository, upload, digest)
    return _created(repository, digest)


async def _close(
    context: AppContext, request: Request, repository: Repository, upload: OpenUpload, digest: Digest
) -> None:
    """Close the upload. If its bytes must be read again for the digest, few requests do so at a time."""
    try:
        if upload.digest(digest.algorithm) is None:
            await _keep_alive(context, upload)
            async with context.rehash_slots:
                await context.bridge.run_bytes(uploads.rehash, upload, digest, store=context.store)
        # Authorized again: the body, and reading the upload again, may have taken hours (invariant 5).
        session_id = upload.upload.session.id
        await _find(context, request, repository, session_id, upload_sessions.TO_WRITE, has_started=True)
    except BaseException:
        # A retry begins at the offset at which this request began (OCI 72).
        await context.bridge.run(uploads.rollback, upload)
        raise
    await context.bridge.run(uploads.finish, upload, digest, store=context.store)


async def status(context: AppContext, request: Request, route: Route) -> Response:
    """Return the offset of an upload (OCI 69)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    upload = await _find(context, request, repository, session_id, upload_sessions.TO_LOOK)
    offset = await context.bridge.run(upload_sessions.status, upload, store=context.store)
    return _session(HTTPStatus.NO_CONTENT, repository, session_id, offset)


async def cancel(context: AppContext, request: Request, route: Route) -> Response:
    """Cancel an upload (OCI 71)."""
    repository, session_id = parse_repository(route.name), _session_id(route)
    upload = await _find(context, request, repository, session_id, upload_sessions.TO_CANCEL)
    await context.bridge.run(upload_sessions.cancel, upload, store=context.store)
    return Response(HTTPStatus.NO_CONTENT)


async def _run_at_offset(
    context: AppContext,
    request: Request,
    repository: Repository,
    session_id: UUID,
    use_case: Callable[..., T],
) -> T:
    """Run a use case that opens an upload at the offset in Content-Range, or at the end of the upload."""
    upload = await _find(context, request, repository, session_id, upload_sessions.TO_WRITE)
    try:
        at = _first_byte(request)
    except ProtocolError as error:
        if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            offset = await context.bridge.run(upload_sessions.status, upload, store=context.store)
            error.headers |= _progress(repository, session_id, offset)
        raise
    try:
        return await context.bridge.run(use_case, upload, at=at, store=context.store)
    except UploadMoved as error:
        error.headers |= _progress(repository, session_id, error.offset)
        raise


async def _find(
    context: AppContext,
    request: Request,
    repository: Repository,
    session_id: UUID,
    purpose: Purpose,
    *,
    has_started: bool = False,
) -> Upload:
    """Find an open session. With `has_started`, after the body was read, no cached rows are used."""
    find = partial(upload_sessions.find, purpose=purpose, has_started=has_started)
    dependencies = None if has_started else request.dependencies
    return await context.bridge.read(dependencies, find, credentials(request), repository, session_id)


async def _open(
    context: AppContext, request: Request, repository: Repository, session_id: UUID
) -> OpenUpload:
    use_case = partial(uploads.open_upload, coming=content_length(request) or 0)
    return await _run_at_offset(context, request, repository, session_id, use_case)


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


async def _transfer(context: AppContext, request: Request, upload: OpenUpload) -> None:
    """Hash and write each piece in two threads while the next one arrives: at most two pieces in memory.

    Until the next piece arrives, hours may pass, but much less than the life of an idle upload.
    """
    await _keep_alive(context, upload)
    transfer: asyncio.Future[tuple[None, None]] | None = None
    with context.upload_buffers.lease() as size:
        try:
            async for piece in request.pieces(size):
                if transfer is not None:
                    await transfer
                await _keep_alive(context, upload)
                transfer = asyncio.gather(
                    context.bridge.run_bytes(upload.hash, piece),
                    context.bridge.run_bytes(upload.store, piece),
                )
        finally:
            try:
                if transfer is not None:
                    await transfer
            finally:
                transfer = None  # breaks the reference cycle of an exception, see Bridge._run_in


async def _keep_alive(context: AppContext, upload: OpenUpload) -> None:
    """Extend the life of the upload's session if that is due."""
    if upload.upload.session.is_due:
        await context.bridge.run(uploads.keep_alive, upload)


def _check_length(request: Request, upload: OpenUpload) -> None:
    """Check the length of the body, which may end early without the end of the connection (OCI 58, 67)."""
    header = request.headers.get("content-range")
    if header is None:
        return
    _, last = parse_content_range(header)
    if upload.writer.offset != last + 1:
        raise ProtocolError(
            ErrorCode.SIZE_INVALID,
            f"Content-Range ends at byte {last}, the body at {upload.writer.offset - 1}",
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
