"""The two HTTP servers, with the control plane or the data plane as the application (ADR 28).

On SIGTERM they accept no more connections, close the idle ones, and exit after the last transfer. The control
plane, which has no long transfers, limits that time. For the data plane the sender of the signal can limit it
with SIGKILL.
"""

import logging
import math
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from django.conf import settings
from starlette.types import Receive, Scope, Send

from registry_control.common.access_log import open_access_log
from registry_control.common.store import blob_store
from registry_control.serving import http_server
from registry_control.serving.addresses import check_addresses, ip_of
from registry_control.serving.dependencies import readiness
from registry_control.serving.probes import Probes
from registry_control.serving.process_tuning import freeze_objects, keep_freed_memory, rare_collections
from registry_control.serving.request_log import RequestLog
from registry_control.serving.wsgi import WsgiInThreads, reject_connection
from registry_control.settings.environment import Address, ConfigurationError
from registry_data.connections import Connections
from registry_data.proxies import client_scope

logger = logging.getLogger(__name__)

_Application: TypeAlias = Callable[..., Any]
_Build: TypeAlias = Callable[[], _Application]

_OPEN_FILES: Final = 65_536
_BACKLOG: Final = 1024
# Requests to the control plane take milliseconds, unless the database hangs.
_CONTROL_STOP_TIMEOUT: Final = 5.0  # seconds
# The size limit of a body without credentials at the control plane: sign-in forms and token requests.
_ANONYMOUS_BODY: Final = 64 * 1024  # bytes
_FORMS: Final = ("/admin/", "/registry-internal/")
_CREDENTIALS: Final = frozenset((b"x-auth-token", b"authorization", b"cookie"))


@dataclass(frozen=True, slots=True)
class _Plane:
    name: str
    address: Address
    variable: str  # the setting that contains the address
    # Imports the plane's modules before the workers are forked: they start sooner and share the memory.
    preload: Callable[[], object]
    build: _Build
    workers: int
    stop_timeout: float  # seconds from SIGTERM until its processes are killed


def serve_control() -> None:
    """Serve the management API and the administration pages until SIGTERM."""
    _serve(
        _Plane(
            name="control",
            address=settings.CONTROL_ADDR,
            variable="REGISTRY_CONTROL_ADDR",
            preload=_preload_control,
            build=_build_control,
            workers=1,
            stop_timeout=_CONTROL_STOP_TIMEOUT,
        )
    )


def serve_data() -> None:
    """Serve the OCI distribution API until SIGTERM."""
    _serve(
        _Plane(
            name="data",
            address=settings.DATA_ADDR,
            variable="REGISTRY_DATA_ADDR",
            preload=_preload_data,
            build=_build_data,
            workers=settings.DATA_WORKERS,
            stop_timeout=math.inf,
        )
    )


def _preload_control() -> None:
    import registry_control.urls  # noqa: F401


def _build_control() -> _Application:
    from registry_control.wsgi import application

    adapter = WsgiInThreads(application, threads=settings.CONTROL_THREADS, body_limit=_body_limit)
    log = open_access_log(settings.ACCESS_LOG)
    logged, rejecting = RequestLog(adapter, log), RequestLog(reject_connection, log)
    connections = _connections(settings.CONTROL_ADDR, "REGISTRY_CONTROL_ADDR", processes=1)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await logged(scope, receive, send)
            return
        respond = logged if await connections.admits(scope["client"]) else rejecting
        await respond(client_scope(scope, settings.TRUSTED_PROXIES), receive, send)

    return Probes(serve, readiness(blob_store()))


def _body_limit(scope: Scope) -> int:
    """The size limit of a body; 0 for requests to the API without credentials, which are rejected anyway."""
    if any(name in _CREDENTIALS for name, _ in scope["headers"]):
        return settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return _ANONYMOUS_BODY if scope["path"].startswith(_FORMS) else 0


def _preload_data() -> None:
    import registry_data.http.app  # noqa: F401


def _build_data() -> _Application:
    from registry_data.main import build

    connections = _connections(settings.DATA_ADDR, "REGISTRY_DATA_ADDR", processes=settings.DATA_WORKERS)
    application = build(connections)
    return Probes(application, readiness(blob_store()), application.begin)


def _connections(address: Address, variable: str, *, processes: int) -> Connections:
    return Connections(
        ip_of(address, variable),
        address.port,
        limit=settings.CONNECTIONS_PER_ADDRESS,
        processes=processes,
        trusted=settings.TRUSTED_PROXIES,
    )


def _serve(plane: _Plane) -> None:
    check_addresses({plane.variable: plane.address})
    _check_rates_file()
    with rare_collections():
        plane.preload()
    _raise_open_file_limit()
    keep_freed_memory()
    freeze_objects()
    http_server.serve(
        http_server.Settings(
            name=plane.name,
            address=ip_of(plane.address, plane.variable),
            port=plane.address.port,
            processes=plane.workers,
            backlog=_BACKLOG,
            keep_alive=settings.KEEPALIVE,
            unread_timeout=settings.IDLE_TIMEOUT,
            stop_timeout=plane.stop_timeout,
        ),
        lambda: _load(plane),
    )


def _check_rates_file() -> None:
    """Create the folder of the table of rates, the only file of a server without a disk of its own.

    Raises:
        ConfigurationError: it cannot be written.
    """
    if not (settings.RATE_LIMIT or settings.RATE_LIMIT_ANONYMOUS):
        return
    try:
        settings.STATE_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.STATE_DIR / "rates").touch(mode=0o600)
    except OSError as error:
        raise ConfigurationError(f"REGISTRY_STATE_DIR: rate limits need a file in it: {error}") from error


def _load(plane: _Plane) -> _Application:
    """Build the application in a worker process, right after the fork."""
    application = plane.build()
    freeze_objects()
    logger.info("%s: process %d serves", plane.name, os.getpid())
    return application


def _raise_open_file_limit() -> None:
    """Raise the soft limit: every connection is an open file, and the usual limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
