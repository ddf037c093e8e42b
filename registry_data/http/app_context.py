"""The parts of the data plane, which every endpoint receives, and the hook for sent responses."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from registry_data.config import Config
from registry_data.http.bridge import Bridge
from registry_data.http.memory_budget import MemoryBudget
from registry_data.http.messages import Request, RequestContext, Response
from registry_data.http.routes import Route
from registry_data.rates import Rates
from registry_data.scoped_cache import ChangeFeed, ChangeTracker
from registry_data.storage.base import PIECE, BlobStore


@dataclass(frozen=True, slots=True)
class AppContext:
    """The data plane's parts, made once by the composition root."""

    config: Config
    bridge: Bridge
    store: BlobStore
    feed: ChangeFeed
    tracker: ChangeTracker
    start_request: Callable[[str | None], RequestContext]  # with the id that the client sent
    rates: Rates | None = None  # without limits
    on_response: tuple["ResponseHook", ...] = ()
    on_shutdown: tuple[Callable[[], None], ...] = ()
    # So many uploads are read once more at a time: most threads for bytes are for those who send some.
    reading_again: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    gathering: MemoryBudget = field(default_factory=lambda: MemoryBudget(64 * 1024 * 1024, most=PIECE))
    # The server keeps up to five parts of an answer that its client does not take.
    sending: MemoryBudget = field(default_factory=lambda: MemoryBudget(16 * 1024 * 1024, most=PIECE))


@dataclass(slots=True)
class Exchange:
    """A request and what was sent for it, as hooks see it when it has ended, cached or not.

    `request.route` names the kind of resource and the repository, unless the request was refused before that
    was known; `request.context` has its id and its principal.
    """

    request: Request
    status: int = 0  # 0 if the client left before a response began
    sent: int = 0  # bytes of the body
    seconds: float = 0.0
    from_cache: bool = False


ResponseHook: TypeAlias = Callable[[Exchange], None]
"""Called on the event loop after every response: it must not wait."""

Endpoint: TypeAlias = Callable[[AppContext, Request, Route], Awaitable[Response]]
