"""Answers on their way to clients, who may take their time."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from starlette.types import Send

from registry_data.http.app_context import AppContext
from registry_data.http.messages import FileBody, Request, Response
from registry_data.http.response_cache import KeptAnswer

logger = logging.getLogger(__name__)

# What a client may take for one part of a body: who takes nothing must not hold it for ever.
_PATIENCE: Final = 600  # seconds


async def send_kept(kept: KeptAnswer, send: Send) -> None:
    """Send an answer that was kept."""
    await send(kept.start)
    await send(kept.body)


async def send_answer(request: Request, answer: Response, plane: AppContext, send: Send) -> None:
    """Send an answer, whatever its body is."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.raw_headers()})
    if request.method == "HEAD":
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(answer.body, bytes):
        await send({"type": "http.response.body", "body": answer.body})
    elif isinstance(answer.body, FileBody):
        await send({"type": "http.response.pathsend", "path": str(answer.body.path)})
    else:
        await _send_pieces(request, answer.body, plane, send)


async def _send_pieces(request: Request, pieces: Iterator[bytes], plane: AppContext, send: Send) -> None:
    """Read and send until the end, or until nobody listens: the server's `send` does not say so.

    The server keeps several parts of a body for a client that takes nothing, so the more downloads there are,
    the smaller is each part.
    """
    gone = asyncio.ensure_future(request.gone())
    try:
        with plane.sending.part() as size:
            while (piece := await plane.bridge.run_bytes(next, pieces, b"")) != b"":
                for part in _parts(piece, size):
                    if gone.done() or not await _took(part, send):
                        logger.info("client is away during %s %s", request.method, request.path)
                        return
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()


def _parts(piece: bytes, size: Callable[[], int]) -> Iterator[bytes]:
    start = 0
    while start < len(piece):
        stop = start + size()
        yield piece[start:stop]
        start = stop


async def _took(part: bytes, send: Send) -> bool:
    """Whether the client takes a part of a body, or at least something before it."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await send({"type": "http.response.body", "body": part, "more_body": True})
    except TimeoutError:
        return False
    return True
