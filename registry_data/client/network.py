"""The transport below the HTTP client: checks each address before connecting to it, and limits slow peers.

All connections are opened here, also those of redirects and token servers. The name is resolved once, and the
connection goes to an address that was checked, so a name server cannot give another answer in between (DNS
rebinding). The name itself stays in the Host header and in TLS, where the certificate is checked against it.
"""

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

import certifi
import httpcore
import httpx

from registry_data.client.egress import EgressPolicy

# Exceptions of a request that got no complete response. The transport raises those of httpcore.
NETWORK_ERRORS: Final = (
    httpx.TransportError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
)
_PACE_WINDOW: Final = 60.0  # seconds of waiting after which the rate is checked
_SLOWEST: Final = 4 * 1024  # bytes per second of a body that is sent or received
_PIECE: Final = 64 * 1024  # bytes written between two checks
_ADDRESSES: Final = 4  # of one name, to which connections are tried
_KEEPALIVE: Final = 5.0  # seconds


class GuardedTransport(httpx.BaseTransport):
    """An HTTP/1.1 transport that connects to what the policy allows; no proxies."""

    def __init__(self, egress: EgressPolicy, *, insecure: bool) -> None:
        self._streams = _Streams()
        self._pool = httpcore.ConnectionPool(
            ssl_context=_ssl_context(insecure=insecure),
            max_connections=None,  # the threads of the worker limit them
            keepalive_expiry=_KEEPALIVE,
            network_backend=_GuardedBackend(egress, self._streams),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; raises `NETWORK_ERRORS` and what `EgressPolicy.resolve` raises."""
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("the transport sends synchronous streams only")
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def abort(self) -> None:
        """Make every request that other threads are waiting for fail at once."""
        self._streams.shut_down()


def allow_long_body(response: httpx.Response) -> None:
    """Let the body take as long as its sender keeps a minimum rate; call it before reading the body."""
    stream = response.extensions.get("network_stream")
    if isinstance(stream, _PacedStream):
        stream.allow_long_body()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Streams:
    """The open connections, for `abort`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: WeakSet[httpcore.NetworkStream] = WeakSet()

    def add(self, stream: httpcore.NetworkStream) -> None:
        with self._lock:
            self._open.add(stream)

    def shut_down(self) -> None:
        """Shut the sockets down: unlike closing them, this wakes threads that wait for them."""
        with self._lock:
            streams = list(self._open)
        for stream in streams:
            found = stream.get_extra_info("socket")
            if isinstance(found, socket.socket):
                with suppress(OSError):  # it was closed meanwhile
                    found.shutdown(socket.SHUT_RDWR)


class _GuardedBackend(httpcore.NetworkBackend):
    def __init__(self, egress: EgressPolicy, streams: _Streams) -> None:
        self._egress = egress
        self._streams = streams
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the checked addresses that accepts."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._egress.resolve(host, port)[:_ADDRESSES]:
            try:
                # A numeric address: it is not looked up again.
                stream = self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _PacedStream(stream, self._streams)
        raise failure


class _PacedStream(httpcore.NetworkStream):
    """A connection whose peer cannot keep a thread busy by sending or reading a byte now and then.

    The time-out of the first read after a write is that of the whole response. Request bodies, and response
    bodies after `allow_long_body`, may take longer, but at a minimum rate.
    """

    def __init__(self, stream: httpcore.NetworkStream, streams: _Streams) -> None:
        self._stream = stream
        self._streams = streams
        streams.add(self)
        self._deadline: float | None = None  # of the response that is being read
        self._is_reading = False
        self._pace = _Pace()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._is_reading:
            self._is_reading = True
            self._pace = _Pace()
            self._deadline = None if timeout is None else monotonic() + timeout
        if self._deadline is not None:
            timeout = self._deadline - monotonic()
            if timeout <= 0:
                raise httpcore.ReadTimeout("the response took too long")
            return self._stream.read(max_bytes, timeout)
        started = monotonic()
        data = self._stream.read(max_bytes, timeout)
        if not self._pace.is_kept(len(data), started):
            raise httpcore.ReadTimeout("the response arrives too slowly")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._is_reading:
            self._is_reading = False
            self._pace = _Pace()
        view = memoryview(buffer)
        for at in range(0, len(view), _PIECE):
            piece = bytes(view[at : at + _PIECE])
            started = monotonic()
            self._stream.write(piece, timeout)
            if not self._pace.is_kept(len(piece), started):
                raise httpcore.WriteTimeout("the request is read too slowly")

    def allow_long_body(self) -> None:
        """Replace the deadline of the response by a minimum rate."""
        self._deadline = None

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        encrypted = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _PacedStream(encrypted, self._streams)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the type of the base class
        return self._stream.get_extra_info(info)


class _Pace:
    """Measures bytes per second of waiting for the peer; time that this program takes does not count."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._moved = 0

    def is_kept(self, moved: int, started: float) -> bool:
        """Add a read or write that began at `started`; return False if the peer is too slow."""
        self._waited += monotonic() - started
        self._moved += moved
        if self._waited < _PACE_WINDOW:
            return True
        is_kept = self._moved >= self._waited * _SLOWEST
        self._waited, self._moved = 0.0, 0
        return is_kept


def _ssl_context(*, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's certificates, or those of SSL_CERT_FILE
    paths = ssl.get_default_verify_paths()
    if not (paths.cafile or paths.capath):  # the system has no certificates
        context.load_verify_locations(certifi.where())
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
