"""A Docker engine started by the tests, separate from the machine's."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Final

from tests.services.child import Child, ServiceError
from tests.services.tools import missing, require_tool

_START_TIMEOUT: Final = 60.0  # seconds
_STOP_TIMEOUT: Final = 30.0  # seconds
_COMMAND_TIMEOUT: Final = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class DockerClient:
    """The docker command line with separate stored credentials, like another user's machine."""

    program: Path
    host: str
    config: Path

    def __call__(
        self, *arguments: str, stdin: str | bytes = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS`; standard output and error are returned as text.

        Raises:
            ServiceError: it failed, unless `check` is false.
        """
        done = subprocess.run(
            [str(self.program), *arguments],
            env={**os.environ, **self.environment()},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
        text = subprocess.CompletedProcess[str](
            done.args,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and text.returncode != 0:
            raise ServiceError(f"docker {' '.join(arguments)}: {text.returncode}\n{text.stdout}{text.stderr}")
        return text

    def environment(self) -> Mapping[str, str]:
        """The variables by which a docker program uses this engine and these credentials."""
        return {
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.config),
            # The engine's own builder: BuildKit needs a plugin that not every client has.
            "DOCKER_BUILDKIT": "0",
        }


@dataclass(frozen=True, slots=True)
class DockerEngine:
    """A running engine. Like every engine, it uses plain HTTP for registries on 127.0.0.1."""

    folder: Path
    program: Path

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def client(self) -> DockerClient:
        """A client without stored credentials."""
        config = Path(tempfile.mkdtemp(dir=self.folder, prefix="client-"))
        (config / "config.json").write_text("{}\n", encoding="utf-8")
        return DockerClient(self.program, self.host, config)

    def answers(self) -> bool:
        """Whether it accepts commands."""
        if not (self.folder / "docker.sock").exists():
            return False
        command = [str(self.program), "--host", self.host, "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def build_image(docker: DockerClient, name: str, *, context: Path) -> None:
    """Build an image of three layers that prints `hello from stowage`, from a static busybox.

    Two of its layers are random, so no other image has them. `context` is the folder to build in.
    """
    context.mkdir(exist_ok=True)
    shutil.copyfile(require_tool("busybox"), context / "busybox")
    (context / "busybox").chmod(0o755)
    (context / "large").write_bytes(os.urandom(3_000_000))
    (context / "small").write_bytes(os.urandom(10))
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY large /large\nCOPY small /small\n"
        'CMD ["/bin/busybox", "echo", "hello from stowage"]\n'
    )
    docker("build", "--quiet", "--network", "none", "--tag", name, str(context))


@contextmanager
def running_docker() -> Iterator[DockerEngine]:
    """Start an engine that leaves the machine's network unchanged, and stop it at the end.

    Containers have only a loopback network; the engine pulls and pushes over the machine's network.
    Skips the test if docker is missing or cannot be started.
    """
    server, program = require_tool("dockerd"), require_tool("docker")
    if os.geteuid() != 0:
        missing("docker and root")
    # A short path, not pytest's: it contains sockets, whose paths are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="stowage-docker-"))
    try:
        with _running_engine(folder, server, program) as engine:
            yield engine
    finally:
        _unmount_below(folder)
        shutil.rmtree(folder)


@contextmanager
def _running_engine(folder: Path, server: Path, program: Path) -> Iterator[DockerEngine]:
    engine = DockerEngine(folder, program)
    # A separate file: otherwise the engine reads the machine's.
    config = folder / "daemon.json"
    config.write_text(json.dumps(_daemon_settings(engine)), encoding="utf-8")
    command = [str(server), "--config-file", str(config)]
    child = Child(command, log=folder / "dockerd.log", stop_signal=Signals.SIGTERM)
    try:
        child.wait_until(engine.answers, timeout=_START_TIMEOUT)
        yield engine
    finally:
        child.stop(timeout=_STOP_TIMEOUT)


def _daemon_settings(engine: DockerEngine) -> dict[str, object]:
    return {
        "hosts": [engine.host],
        "data-root": str(engine.folder / "data"),
        "exec-root": str(engine.folder / "exec"),
        "pidfile": str(engine.folder / "pid"),
        "bridge": "none",
        "iptables": False,
        "ip-forward": False,
    }


def _unmount_below(folder: Path) -> None:
    """Unmount what the engine left mounted: mount points cannot be deleted."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    points = [line.split()[1] for line in mounts]
    for point in reversed(points):  # the innermost first
        if Path(point).is_relative_to(folder):
            subprocess.run(["umount", point], check=True, capture_output=True)
