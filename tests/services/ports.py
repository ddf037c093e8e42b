"""Ports for the services that tests start."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

# Below the range from which the kernel picks ports for outgoing connections: a service that is
# stopped and started again finds its port still free.
_FIRST: Final = 20_000
_LAST: Final = 32_767

# One lock file per port, held until this process ends: several test runs on one machine share the range.
_FOLDER: Final = Path(tempfile.gettempdir(), "stowage-test-ports")

_reserved: dict[int, int] = {}  # port -> descriptor of its lock file


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no program listens on and that no test run has reserved."""
    while True:
        port = random.randint(_FIRST, _LAST)
        if port not in _reserved and _reserve(port):
            return port


def _reserve(port: int) -> bool:
    _FOLDER.mkdir(exist_ok=True)
    descriptor = os.open(_FOLDER / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    if not _is_free(port):
        os.close(descriptor)
        return False
    _reserved[port] = descriptor
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
