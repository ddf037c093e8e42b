"""What every endpoint is given."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from registry_data.config import Config
from registry_data.freshness import VersionSource
from registry_data.http.bridge import Bridge
from registry_data.http.memory_budget import MemoryBudget
from registry_data.http.messages import Request, Response
from registry_data.http.routes import Route
from registry_data.rates import Rates
from registry_data.storage.base import PIECE, BlobStore


@dataclass(frozen=True, slots=True)
class AppContext:
    """The data plane's parts, made once by the composition root."""

    config: Config
    bridge: Bridge
    store: BlobStore
    stamps: VersionSource
    rates: Rates | None  # where nobody can ask too often
    # So many uploads are read once more at a time: most threads for bytes are for those who send some.
    reading_again: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    gathering: MemoryBudget = field(default_factory=lambda: MemoryBudget(64 * 1024 * 1024, most=PIECE))
    # The server keeps up to five parts of an answer that its client does not take.
    sending: MemoryBudget = field(default_factory=lambda: MemoryBudget(16 * 1024 * 1024, most=PIECE))


Endpoint: TypeAlias = Callable[[AppContext, Request, Route], Awaitable[Response]]
