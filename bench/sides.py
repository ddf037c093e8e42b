"""The registries that are compared: how each one is started and stopped."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

import httpx
from minio import Minio

from bench.registry import NAMESPACE, Files, Registry
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.postgres import running_postgres
from tests.services.processes import descendants
from tests.services.stack import Stack
from tests.services.tools import tools_folder

_API: Final = "/registry/v1/regions/fr-par"
_START_TIMEOUT: Final = 30.0  # seconds
_ACCESS, _SECRET = "benchaccess", "benchsecret"
REFERENCE_PROGRAM: Final = "distribution-registry"


class NotInstalled(Exception):
    """A program is missing; the message is its name."""


Start = Callable[[Path, ExitStack], Registry]


@dataclass(frozen=True, slots=True)
class Side:
    """One registry to compare. A `limit` is no registry and shows what the machine can do."""

    name: str
    title: str
    start: Start
    needs: tuple[str, ...] = ()
    ours: bool = False
    limit: bool = False


class Running:
    """A running side with its folder."""

    def __init__(self, side: Side, folder: Path) -> None:
        self.side: Final = side
        self._folder = folder
        self._cleanup = ExitStack()
        self.registry = self._start()

    def fresh(self) -> None:
        """Restart it with an empty folder."""
        self.stop()
        self.registry = self._start()

    def stop(self) -> None:
        self._cleanup.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> Registry:
        self._folder.mkdir(parents=True)
        before = descendants(os.getpid())
        try:
            registry = self.side.start(self._folder, self._cleanup)
        except BaseException:
            self._cleanup.close()
            raise
        self._cleanup.callback(registry.http.close)
        registry.processes = frozenset(descendants(os.getpid()).keys() - before.keys())
        return registry


def program(name: str) -> str:
    """The path of a program.

    Raises:
        NotInstalled: it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([str(tools_folder()), os.environ["PATH"], "/usr/sbin"]))
    if not found:
        raise NotInstalled(name)
    return found


def _child(cleanup: ExitStack, folder: Path, command: list[str], host: str, **environment: str) -> None:
    """Start a server and wait until it accepts connections."""
    child = Child(
        command,
        log=folder / f"{Path(command[0]).name}.log",
        stop_signal=Signals.SIGTERM,
        env={**os.environ, **environment},
        cwd=folder,
    )
    cleanup.callback(child.stop, timeout=30)
    child.wait_until(lambda: _answers(host), timeout=_START_TIMEOUT)


def _answers(host: str) -> bool:
    try:
        httpx.get(f"http://{host}/", timeout=5)
    except httpx.TransportError:
        return False
    return True


_PEER_SETTINGS: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  {storage}
  delete: {{enabled: true}}
  redirect: {{disable: true}}
http: {{addr: "{host}"}}
"""


def _peer(name: str) -> Start:
    """docker-registry and distribution v3 with default settings, without access logs."""

    def start(folder: Path, cleanup: ExitStack) -> Registry:
        return _start_peer(name, folder, cleanup, f"filesystem: {{rootdirectory: {folder}/data}}")

    return start


def _start_peer(name: str, folder: Path, cleanup: ExitStack, storage: str) -> Registry:
    host = f"127.0.0.1:{free_port()}"
    settings = folder / "config.yml"
    settings.write_text(_PEER_SETTINGS.format(storage=storage, host=host), encoding="utf-8")
    # By default version 3 sends traces to a collector.
    _child(cleanup, folder, [program(name), "serve", str(settings)], host, OTEL_TRACES_EXPORTER="none")
    return Registry(host)


def _peer_on_minio(folder: Path, cleanup: ExitStack) -> Registry:
    """Without redirects to MinIO, which is also our default."""
    minio = _minio(folder, cleanup)
    Minio(minio, access_key=_ACCESS, secret_key=_SECRET, secure=False).make_bucket("bench")
    storage = (
        f"s3: {{regionendpoint: 'http://{minio}', region: us-east-1, bucket: bench, accesskey: {_ACCESS}, "
        f"secretkey: {_SECRET}, secure: false, forcepathstyle: true}}"
    )
    return _start_peer(REFERENCE_PROGRAM, folder, cleanup, storage)


_NGINX_SETTINGS: Final = """\
{user}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes auto;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=10000;
  client_body_temp_path {folder}/body;
  server {{ listen {host} backlog=1024; root {folder}/files; }}
}}
"""


def _nginx(folder: Path, cleanup: ExitStack) -> Registry:
    host = f"127.0.0.1:{free_port()}"
    settings = folder / "nginx.conf"
    # Started by root, its workers would run as a user who may not read our folders.
    user = "user root;" if os.geteuid() == 0 else ""
    settings.write_text(_NGINX_SETTINGS.format(folder=folder, host=host, user=user), encoding="utf-8")
    _child(cleanup, folder, [program("nginx"), "-c", str(settings), "-p", str(folder)], host)
    served = Files(host)
    served.folder = folder / "files"
    return served


def stowage(folder: Path, cleanup: ExitStack, **environment: str) -> Registry:
    stack = cleanup.enter_context(Stack(folder / "stowage", environment=environment))
    credentials = stack.credentials
    httpx.post(
        f"{credentials.control_url}{_API}/namespaces",
        json={"name": NAMESPACE},
        headers={"X-Auth-Token": credentials.secret_key},
    ).raise_for_status()
    return Registry(credentials.registry_host, credentials.secret_key)


def on_postgresql(folder: Path, cleanup: ExitStack, **environment: str) -> Registry:
    server = cleanup.enter_context(running_postgres(folder / "postgres", durable=True))
    return stowage(folder, cleanup, REGISTRY_DATABASE_URL=server.create_database("registry"), **environment)


def _on_postgresql_and_minio(folder: Path, cleanup: ExitStack) -> Registry:
    storage = f"s3://{_ACCESS}:{_SECRET}@{_minio(folder, cleanup)}/bench?secure=0"
    return on_postgresql(folder, cleanup, REGISTRY_STORAGE_URL=storage)


def _minio(folder: Path, cleanup: ExitStack) -> str:
    """Start an object store for one side; returns its host."""
    host = f"127.0.0.1:{free_port()}"
    command = [program("minio"), "server", str(folder / "minio"), "--address", host, "--quiet"]
    _child(cleanup, folder, command, host, MINIO_ROOT_USER=_ACCESS, MINIO_ROOT_PASSWORD=_SECRET)
    return host


REFERENCE: Final = "distribution"
REFERENCE_ON_MINIO: Final = "distribution-minio"
SIDES: Final = (
    Side("docker-registry", "docker-registry 2.8", _peer("docker-registry"), needs=("docker-registry",)),
    Side(REFERENCE, "distribution v3", _peer(REFERENCE_PROGRAM), needs=(REFERENCE_PROGRAM,)),
    Side(REFERENCE_ON_MINIO, "distribution v3, MinIO", _peer_on_minio, needs=(REFERENCE_PROGRAM, "minio")),
    Side("sqlite", "Stowage, SQLite + disk", stowage, ours=True),
    Side("postgresql", "Stowage, PostgreSQL + disk", on_postgresql, ours=True),
    Side(
        "minio",
        "Stowage, PostgreSQL + MinIO",
        _on_postgresql_and_minio,
        needs=("minio",),
        ours=True,
    ),
    Side("nginx", "nginx, plain files (limit)", _nginx, needs=("nginx",), limit=True),
)
