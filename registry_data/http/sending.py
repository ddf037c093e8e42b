"""Answers on their way to clients, who may take their time."""

import asyncio
import logging
from collections.abc import Callable, Iterator

from starlette.types import Send

from registry_data.http.app_context import AppContext, Exchange
from registry_data.http.messages import FileBody, Response
from registry_data.http.response_cache import CachedResponse
from registry_data.storage.base import SizedReader

logger = logging.getLogger(__name__)


async def send_cached(cached: CachedResponse, exchange: Exchange, send: Send) -> None:
    """Send a cached response."""
    exchange.from_cache = True
    await _start(cached.status, cached.headers, exchange, send)
    exchange.sent = len(cached.body["body"])
    await send(cached.body)


async def send_response(response: Response, exchange: Exchange, plane: AppContext, send: Send) -> None:
    """Send a response, whatever its body is."""
    request = exchange.request
    await _start(response.status, response.raw_headers(), exchange, send)
    if request.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(response.body, bytes):
        exchange.sent = len(response.body)
        await send({"type": "http.response.body", "body": response.body})
    elif isinstance(response.body, FileBody):
        exchange.sent = int(
            response.headers.get("content-length", 0)
        )  # the server does not tell how far it came
        await send({"type": "http.response.pathsend", "path": str(response.body.path)})
    else:
        await _send_pieces(exchange, response.body, plane, send)


async def _start(status: int, headers: list[tuple[bytes, bytes]], exchange: Exchange, send: Send) -> None:
    exchange.status = status
    request_id = (b"x-request-id", exchange.request.context.request_id.encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, request_id]})


async def _send_pieces(exchange: Exchange, pieces: Iterator[bytes], plane: AppContext, send: Send) -> None:
    """Read and send until the end, or until nobody listens: the server's `send` does not say so.

    The server keeps several parts of a body for a client that takes nothing, so the more downloads there are,
    the smaller is each part.
    """
    request = exchange.request
    gone = asyncio.ensure_future(request.gone())
    try:
        with plane.sending.lease() as size:
            while (piece := await plane.bridge.run_bytes(_next, pieces, size())) != b"":
                for part in _parts(piece, size):
                    if gone.done() or not await _took(part, send, plane.config.idle_time):
                        logger.info("client is away during %s %s", request.method, request.path)
                        return
                    exchange.sent += len(part)
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


def _next(pieces: Iterator[bytes], size: int) -> bytes:
    """The next piece, of at most `size` bytes where that can be chosen; empty at the end."""
    if isinstance(pieces, SizedReader):
        pieces.piece_size = size
    return next(pieces, b"")


def _parts(piece: bytes, size: Callable[[], int]) -> Iterator[bytes]:
    start = 0
    while start < len(piece):
        stop = start + size()
        yield piece[start:stop]
        start = stop


async def _took(part: bytes, send: Send, idle_time: float) -> bool:
    """Whether the client takes a part of a body, or at least something before it."""
    try:
        async with asyncio.timeout(idle_time):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        return False
    return True
