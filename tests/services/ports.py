"""Ports for the services that tests start."""

import random
import socket
from typing import Final

# Below the range from which the kernel picks ports for outgoing connections: a service that is
# stopped and started again finds its port still free.
_FIRST: Final = 20_000
_LAST: Final = 32_767

_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on and that this process has not handed out before."""
    while True:
        port = random.randint(_FIRST, _LAST)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
