"""nginx as a reverse proxy that terminates TLS in front of one product."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

import httpx

from tests.services.certificates import Certificates, make_certificates
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.tools import require_tool

_START_TIMEOUT: Final = 30.0  # seconds
_HOST: Final = "localhost"

# Paths are explicit, because the compiled-in ones belong to Debian's own nginx. Bodies are streamed in both
# directions, without a limit: layers are larger than any default.
_CONFIGURATION: Final = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/errors.log;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_set_header Connection "";
  {headers}
  server {{ listen 127.0.0.1:{control_port} ssl; location / {{ proxy_pass http://{control}; }} }}
  server {{ listen 127.0.0.1:{data_port} ssl; location / {{ proxy_pass http://{data}; }} }}
}}
"""
_FORWARDED_HEADERS: Final = (
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Forwarded-Proto $scheme;",
)


@dataclass(frozen=True, slots=True)
class TlsProxy:
    """A proxy's two public addresses. They are reserved before it runs, so that a product can name them."""

    folder: Path
    certificates: Certificates
    control_port: int
    data_port: int

    @property
    def control_url(self) -> str:
        """The base URL of the management API and of the administration."""
        return f"https://{_HOST}:{self.control_port}"

    @property
    def registry_host(self) -> str:
        """The registry's host as clients write it in image names."""
        return f"{_HOST}:{self.data_port}"

    @property
    def environment(self) -> dict[str, str]:
        """Settings of a product behind this proxy that has no REGISTRY_PUBLIC_HOST."""
        return {
            "REGISTRY_PUBLIC_SCHEME": "https",
            "REGISTRY_TRUSTED_PROXIES": "127.0.0.1",
            "REGISTRY_ALLOWED_HOSTS": _HOST,
        }

    def client_context(self) -> ssl.SSLContext:
        """The value of httpx's `verify`."""
        return self.certificates.client_context()

    @contextmanager
    def forwarding(self, *, control: str, data: str, forward_host: bool = True) -> Iterator[None]:
        """Run nginx in front of the planes at `control` and `data` (HOST:PORT).

        It forwards the scheme and the client's address, and the Host header unless `forward_host` is false.
        Skips the test where nginx is not installed.

        Raises:
            ServiceError: it does not start.
        """
        program = require_tool("nginx")
        configuration = self.folder / "nginx.conf"
        host = "proxy_set_header Host $http_host;" if forward_host else ""
        configuration.write_text(
            _CONFIGURATION.format(
                # Started by root, its workers would run as another user who cannot read the folder.
                user="user root;" if os.geteuid() == 0 else "",
                folder=self.folder,
                certificate=self.certificates.server,
                key=self.certificates.server_key,
                headers="\n  ".join([host, *_FORWARDED_HEADERS]),
                control_port=self.control_port,
                data_port=self.data_port,
                control=control,
                data=data,
            ),
            encoding="utf-8",
        )
        errors = str(self.folder / "errors.log")
        command = [str(program), "-c", str(configuration), "-p", str(self.folder), "-e", errors]
        child = Child(command, log=self.folder / "nginx.log", stop_signal=Signals.SIGTERM)
        try:
            child.wait_until(self._answers, timeout=_START_TIMEOUT)
            yield
        finally:
            child.stop()

    def _answers(self) -> bool:
        try:
            httpx.get(self.control_url, verify=self.client_context(), timeout=5)
        except httpx.TransportError:
            return False
        return True


def make_tls_proxy(folder: Path) -> TlsProxy:
    """Reserve the ports and write the certificates of a proxy; nothing runs yet.

    proxy = make_tls_proxy(tmp_path / "proxy")
    product = make_stack(**proxy.environment).start()
    with proxy.forwarding(control=product.control_address, data=product.data_address):
        httpx.get(f"{proxy.control_url}/healthz", verify=proxy.client_context())
    """
    folder.mkdir(parents=True)
    return TlsProxy(folder, make_certificates(folder), free_port(), free_port())
