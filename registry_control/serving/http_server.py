"""Processes that serve HTTP: each runs uvicorn with its own listening socket, and all share the port.

The sockets are opened by the process that supervises the others, and stay open while one of them is replaced:
the connections that come meanwhile wait in its backlog. Accepted connections inherit their options.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import uvicorn

from registry_control.serving.http_protocol import Protocol
from registry_control.serving.process import fork
from registry_control.serving.signals import Signals
from registry_control.serving.supervised import SupervisedProcess
from registry_control.serving.supervision import supervise

logger = logging.getLogger(__name__)

Application: TypeAlias = Callable[..., Any]

# Only on Linux: how long the kernel waits for a client that does not acknowledge data.
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
_PID: Final = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the processes of a plane serve."""

    name: str
    address: str  # an IP address
    port: int
    processes: int
    backlog: int
    keep_alive: int  # seconds for the head of a request, counted from the previous response
    unread_timeout: int  # seconds until the kernel ends a connection whose client takes nothing
    stop_timeout: float  # seconds from SIGTERM until its processes are killed


class _Readiness:
    """What the processes report through a pipe when they have started."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._ready: set[int] = set()

    def report(self) -> None:
        """In a serving process: it has started."""
        os.write(self._writer, _PID.pack(os.getpid()))

    def includes(self, pid: int) -> bool:
        """In the supervisor: whether the process with this id has started."""
        try:
            while found := os.read(self._reader, 4096):
                self._ready.update(number for (number,) in _PID.iter_unpack(found))
        except BlockingIOError:
            pass
        return pid in self._ready


class _Server(uvicorn.Server):
    """Reports when it has started, and ends the connections that it accepts while it stops."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)  # connections that were accepted just now are made
        await super().shutdown(sockets)


def serve(settings: Settings, build: Callable[[], Application]) -> None:
    """Serve until SIGTERM. Each process calls `build` for its application."""
    sockets = [_listen(settings) for _ in range(settings.processes)]
    readiness = _Readiness()
    processes = [
        SupervisedProcess(
            f"{settings.name} process {number}",
            start=partial(
                fork,
                partial(_run, settings, build, sockets, number, readiness.report),
                title=f"manage.py serve {settings.name}",
            ),
            is_ready=readiness.includes,
            report=logger.warning,
        )
        for number in range(settings.processes)
    ]
    with Signals() as signals:
        supervise(
            processes,
            signals,
            on_ready=lambda: None,
            report=logger.warning,
            stop_timeout=settings.stop_timeout,
            on_stop=partial(_close, sockets),
        )


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _USER_TIMEOUT is not None:
        listening.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, settings.unread_timeout * 1000)
    listening.bind((settings.address, settings.port))
    return listening


def _run(
    settings: Settings,
    build: Callable[[], Application],
    sockets: Sequence[socket.socket],
    number: int,
    on_start: Callable[[], None],
) -> int:
    """Serve in this process, on the socket with this number. Returns the exit status."""
    own = sockets[number]
    # An open copy of the others would keep the port open after their end.
    _close([each for each in sockets if each is not own])
    application = build()
    config = uvicorn.Config(
        application,
        http=Protocol,
        interface="asgi3",
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive,
    )
    _Server(config, on_start).run([own])
    return 0
