"""The two HTTP servers: Granian in front of the control plane (WSGI) and of the data plane (ASGI).

On SIGTERM they take no more connections, close the idle ones, and end with the last open transfer. How
long that may take is for whoever sent the signal to say, with SIGKILL.
"""

import logging
import os
import resource
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from django.conf import settings
from django.utils.module_loading import import_string
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from registry_control.embedded.addresses import check_addresses, ip_of
from registry_control.embedded.lifeline import end_with_parent
from registry_control.settings.environment import Address

logger = logging.getLogger(__name__)

_Application: TypeAlias = Callable[..., Any]
_Build: TypeAlias = Callable[[], _Application]

_CONTROL: Final = "registry_control.wsgi.application"
_DATA: Final = "registry_data.main.build"
# Imported once, before the workers are forked: they start sooner, again and again, and share the memory.
_CONTROL_PARTS: Final = "registry_control.urls"
_DATA_PARTS: Final = "registry_data.http.app"

# Connections of one worker process, idle ones included: an idle one costs some memory, but one more than
# this is not answered at all. Open files are the other limit.
_CONNECTIONS: Final = 10_000
_OPEN_FILES: Final = 65_536
_BACKLOG: Final = 1024
_CONTROL_THREADS: Final = 8


def serve_control() -> None:
    """Serve the management API and the administration pages until SIGTERM."""
    _serve(
        lambda: import_string(_CONTROL),
        address=settings.CONTROL_ADDR,
        variable="REGISTRY_CONTROL_ADDR",
        name="control",
        parts=_CONTROL_PARTS,
        interface=Interfaces.WSGI,
        workers=1,
        # Granian takes more than this for a mistake, and says so at every start.
        blocking_threads=min(_CONTROL_THREADS, 2 * (os.cpu_count() or 1) + 1),
    )


def serve_data() -> None:
    """Serve the OCI distribution API until SIGTERM."""
    _serve(
        lambda: import_string(_DATA)(),
        address=settings.DATA_ADDR,
        variable="REGISTRY_DATA_ADDR",
        name="data",
        parts=_DATA_PARTS,
        interface=Interfaces.ASGI,
        workers=settings.DATA_WORKERS,
    )


def _serve(build: _Build, *, address: Address, variable: str, name: str, parts: str, **options: Any) -> None:
    check_addresses({variable: address})
    import_module(parts)
    _allow_many_files()
    server = Server(
        name,
        address=ip_of(address, variable),
        port=address.port,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_CONNECTIONS,
        respawn_failed_workers=True,
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {"level": "WARNING", "propagate": True}}},
        **options,
    )
    server.serve(target_loader=lambda: _load(build, name), wrap_loader=False)


def _load(build: _Build, name: str) -> _Application:
    """Runs in each worker process, right after its fork."""
    end_with_parent()
    application = build()
    logger.info("%s: process %d serves", name, os.getpid())
    return application


def _allow_many_files() -> None:
    """Every connection is an open file, and the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
