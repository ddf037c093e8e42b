"""The application context, which every endpoint receives, and the types of endpoints and response hooks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.types import Scope

from registry_data.config import Config
from registry_data.http.bridge import Bridge
from registry_data.http.memory_budget import MemoryBudget
from registry_data.http.messages import Request, RequestContext, Response
from registry_data.http.routes import Route
from registry_data.rates import Rates
from registry_data.scoped_cache import ChangeFeed, ChangeTracker
from registry_data.storage.base import PIECE, BlobStore

if TYPE_CHECKING:
    from registry_data.http.response_cache import Key
    from registry_data.registry.pulls import Pull


@dataclass(frozen=True, slots=True)
class AppContext:
    """The shared objects of the data plane, created once by the composition root (`registry_data.main`)."""

    config: Config
    bridge: Bridge
    store: BlobStore
    feed: ChangeFeed
    tracker: ChangeTracker
    new_request: Callable[[str | None], RequestContext]  # argument: the X-Request-ID header
    use_request: Callable[[Any], None]  # takes what `new_request` made, for the code of this task
    rates: Rates | None = None  # None: no rate limits
    on_response: tuple["ResponseHook", ...] = ()
    on_shutdown: tuple[Callable[[], None], ...] = ()
    # Limits the concurrent uploads that are rehashed: most storage threads are for running transfers.
    rehash_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    upload_buffers: MemoryBudget = field(default_factory=lambda: MemoryBudget(64 * 1024 * 1024, most=PIECE))
    # For a client that does not read, two parts of a response are in memory, and clients that came first have
    # parts of a larger share.
    download_buffers: MemoryBudget = field(
        default_factory=lambda: MemoryBudget(4 * 1024 * 1024, most=PIECE // 2)
    )


@dataclass(slots=True)
class Exchange:
    """A request and its response, cached or not, as response hooks receive it when the response has ended."""

    scope: Scope  # of ASGI
    headers: dict[bytes, bytes]  # of the request; the first value of each
    context: RequestContext  # the request id and the principal
    route: Route | None = None  # the kind of resource and the repository; None if rejected before routing
    pull: "Pull | None" = None  # what was pulled, if the response counts as a pull of a manifest
    status: int = 0  # 0 if the client disconnected before the response began
    sent: int = 0  # bytes of the body
    seconds: float = 0.0
    ended_at: float = 0.0  # seconds since the epoch
    from_cache: bool = False
    began: float = 0.0  # on the clock of time.perf_counter
    key: "Key | None" = None  # None if the response cannot be cached
    version: int | None = None  # of the change log when the request arrived; None if unknown
    is_admitted: bool = True  # its connection is within the limit of its address


ResponseHook: TypeAlias = Callable[[Exchange], None]
"""Called on the event loop for every response, within some milliseconds after its end: it must not block."""

Endpoint: TypeAlias = Callable[[AppContext, Request, Route], Awaitable[Response]]
