"""Registries of other projects: docker-registry (distribution 2.8, from Debian) and distribution v3."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.tools import require_tool

PEERS: Final = ("docker-registry", "distribution-registry")
_SETTINGS: Final = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  {storage}
  delete: {{enabled: true}}
http: {{addr: "{host}"}}
{auth}
"""
_START_TIMEOUT: Final = 30.0  # seconds


@contextmanager
def running_registry(
    program: str,
    folder: Path,
    *,
    htpasswd: str | None = None,
    host: str | None = None,
    storage: str | None = None,
) -> Iterator[str]:
    """Run one of PEERS; yields its host:port.

    Args:
        program: its name.
        folder: for its settings and content.
        htpasswd: the content of a password file (bcrypt); without it, everybody may push.
        host: where it listens; by default a free port.
        storage: the line of its settings; by default content is in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = host or f"127.0.0.1:{free_port()}"
    storage = storage or f"filesystem: {{rootdirectory: {folder}/data}}"
    auth = ""
    if htpasswd is not None:
        (folder / "htpasswd").write_text(htpasswd, encoding="utf-8")
        auth = f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}"
    settings = folder / "config.yml"
    settings.write_text(_SETTINGS.format(storage=storage, host=host, auth=auth), encoding="utf-8")
    child = Child(
        [str(require_tool(program)), "serve", str(settings)],
        env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},  # version 3 traces by default
        stop_signal=signal.SIGTERM,
        log=folder / "log",
    )
    try:
        child.wait_until(lambda: _answers(host), timeout=_START_TIMEOUT)
        yield host
    finally:
        child.stop(timeout=10)


def _answers(host: str) -> bool:
    try:
        return httpx.get(f"http://{host}/v2/").status_code in (200, 401)
    except httpx.TransportError:
        return False
