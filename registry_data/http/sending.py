"""Sends responses, also to clients that read slowly or disconnect."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from starlette.types import Message, Send

from registry_data.http.app_context import AppContext, Exchange
from registry_data.http.memory_budget import LEAST
from registry_data.http.messages import FileBody, Request, Response
from registry_data.storage.base import SizedReader

logger = logging.getLogger(__name__)

# Of a client that reads nothing, the server and this process buffer so many parts, and wait then.
_BUFFERED_PARTS: Final = 8


async def send_response(
    response: Response, request: Request, exchange: Exchange, context: AppContext, send: Send
) -> None:
    """Send a response: its headers, then bytes, a file or pieces."""
    await send(start_of(response.status, response.raw_headers(), exchange))
    if request.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(response.body, bytes):
        exchange.sent = len(response.body)
        await send({"type": "http.response.body", "body": response.body})
    elif isinstance(response.body, FileBody):
        # The server does not report how many bytes of the file it sent.
        exchange.sent = int(response.headers.get("content-length", 0))
        await send({"type": "http.response.pathsend", "path": str(response.body.path)})
    else:
        await _send_pieces(request, exchange, response.body, context, send)


def start_of(status: int, headers: list[tuple[bytes, bytes]], exchange: Exchange) -> Message:
    """The message that begins a response; its status is noted for the access log."""
    exchange.status = status
    request_id = (b"x-request-id", exchange.context.request_id.encode())
    return {"type": "http.response.start", "status": status, "headers": [*headers, request_id]}


async def _send_pieces(
    request: Request, exchange: Exchange, pieces: Iterator[bytes], context: AppContext, send: Send
) -> None:
    """Read and send until the end or until the client disconnects, which the server's `send` does not report.

    The server buffers several parts of a body for a client that does not read. So the first parts are small,
    and the size of the others decreases with the number of downloads.
    """
    parts = 0
    disconnected = asyncio.ensure_future(request.disconnected())
    try:
        with context.download_buffers.lease() as share:

            def size() -> int:
                return LEAST if parts < _BUFFERED_PARTS else share()

            while (piece := await context.bridge.run_bytes(_next, pieces, size())) != b"":
                for part in _parts(piece, size):
                    if disconnected.done() or not await _send_part(part, send, context.config.idle_time):
                        logger.info(
                            "client disconnected or stopped reading during %s %s",
                            request.method,
                            request.path,
                        )
                        return
                    exchange.sent += len(part)
                    parts += 1
        await send({"type": "http.response.body", "body": b""})
    finally:
        disconnected.cancel()


def _next(pieces: Iterator[bytes], size: int) -> bytes:
    """The next piece, of at most `size` bytes if the reader supports that; empty at the end."""
    if isinstance(pieces, SizedReader):
        pieces.piece_size = size
    return next(pieces, b"")


def _parts(piece: bytes, size: Callable[[], int]) -> Iterator[bytes]:
    start = 0
    while start < len(piece):
        stop = start + size()
        yield piece[start:stop]
        start = stop


async def _send_part(part: bytes, send: Send, idle_time: float) -> bool:
    """Send a part of a body; False if the server could not accept it within `idle_time` seconds."""
    try:
        async with asyncio.timeout(idle_time):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        return False
    return True
