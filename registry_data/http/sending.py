"""Sends responses, also to clients that read slowly or disconnect."""

import asyncio
from collections.abc import Callable, Iterator

from starlette.types import Message, Send

from registry_data.http.app_context import AppContext, Exchange
from registry_data.http.messages import Request, Response
from registry_data.storage.base import SizedReader


async def send_response(
    response: Response, request: Request, exchange: Exchange, context: AppContext, send: Send
) -> None:
    """Send a response: its headers, then bytes or pieces."""
    await send(start_of(response.status, response.raw_headers(), exchange))
    if request.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(response.body, bytes):
        exchange.sent = len(response.body)
        await send({"type": "http.response.body", "body": response.body})
    else:
        await _send_pieces(int(response.headers["content-length"]), exchange, response.body, context, send)


def start_of(status: int, headers: list[tuple[bytes, bytes]], exchange: Exchange) -> Message:
    """The message that begins a response; its status is noted for the access log."""
    exchange.status = status
    request_id = (b"x-request-id", exchange.context.request_id.encode())
    return {"type": "http.response.start", "status": status, "headers": [*headers, request_id]}


async def _send_pieces(
    length: int, exchange: Exchange, pieces: Iterator[bytes], context: AppContext, send: Send
) -> None:
    """Read and send `length` bytes, until the client disconnects or reads nothing for the idle time.

    Two parts are in memory for a client that does not read. Their size decreases with the number of
    downloads.
    """
    with context.download_buffers.lease() as size:
        while exchange.sent < length:
            piece = await context.bridge.run_bytes(_next, pieces, size())
            if not piece:
                return  # the storage has less, so the server ends the connection
            for part in _parts(piece, size):
                exchange.sent += len(part)
                is_end = exchange.sent == length
                try:
                    async with asyncio.timeout(context.config.idle_time):
                        await send({"type": "http.response.body", "body": part, "more_body": not is_end})
                except OSError:  # the client has disconnected; a timeout is one, too
                    exchange.sent -= len(part)
                    return


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
