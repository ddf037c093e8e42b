"""Connects by names whose addresses change; test_guard.py runs it in a network namespace of its own.

There, 198.41.0.4 is a public address of this machine. The name server answers the first query for
rebinding.test with it, and each further one with 127.0.0.1.
"""

import fcntl
import json
import socket
import struct
import threading
from collections import Counter
from typing import Final

from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import RemoteError
from registry_data.client.registry import RemoteRegistry
from tests.services.scripted import Script, replying, running_script

PUBLIC: Final = "198.41.0.4"
_SIOCSIFFLAGS: Final = 0x8914  # netdevice(7)
_SIOCSIFADDR: Final = 0x8916
_IFF_UP: Final = 1
_A: Final = 1  # the record type of IPv4 addresses


def make_addresses() -> None:
    """Start the loopback interface of a new network namespace, and give it the public address as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(PUBLIC))
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", b"lo:1", address))


def serve_names(queries: Counter[str]) -> None:
    """Answer queries for IPv4 addresses; for others, that there is none."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 53))
    while True:
        query, client = listener.recvfrom(512)
        labels, at = [], 12
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode())
            at += length + 1
        (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
        question = query[12 : at + 5]
        answer = b""
        if kind == _A:
            name = ".".join(labels)
            queries[name] += 1
            address = PUBLIC if queries[name] == 1 else "127.0.0.1"
            answer = b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 0, 4) + socket.inet_aton(address)
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, bool(answer), 0, 0)
        listener.sendto(header + question + answer, client)


def outcome(name: str, port: int) -> str:
    """What happens to a check of the registry with this name."""
    with RemoteRegistry(f"http://{name}:{port}", egress=EgressPolicy()) as remote:
        try:
            remote.check()
        except RemoteError as error:
            return type(error).__name__
    return "200"


def hosts(script: Script) -> list[str]:
    """The names in the Host headers of the requests."""
    return [request.headers["host"].rpartition(":")[0] for request in script.requests]


def main() -> None:
    make_addresses()
    queries: Counter[str] = Counter()
    threading.Thread(target=serve_names, args=(queries,), daemon=True).start()
    with running_script(PUBLIC) as public:
        port = int(public.host.rpartition(":")[2])
        with running_script("127.0.0.1", port=port) as internal:
            public.on("GET /v2/", replying(200))
            internal.on("GET /v2/", replying(200))
            found: dict[str, object] = {
                "public.test": outcome("public.test", port),
                "mixed.test": outcome("mixed.test", port),
                "rebinding.test": outcome("rebinding.test", port),
                "rebinding.test again": outcome("rebinding.test", port),
                "requests to the public address": hosts(public),
                "requests to the loopback address": hosts(internal),
                "queries for rebinding.test": queries["rebinding.test"],
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
