"""Installations of deploy/compose on a Docker engine of the tests."""

import os
import re
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import httpx

from tests.oci_client import OciClient
from tests.services.child import ServiceError
from tests.services.docker import DockerClient
from tests.services.ports import free_port
from tests.services.stack import ROOT
from tests.services.tools import require_tool

_START_TIMEOUT: Final = 600  # seconds
_COMMAND_TIMEOUT: Final = 700.0  # seconds


@dataclass(frozen=True)
class Installation:
    """A copy of deploy/ with its own project name, ports and `.env`."""

    name: str
    folder: Path
    docker: DockerClient
    host: str
    registry_port: int
    https_port: int

    @property
    def registry(self) -> str:
        """The registry's host as clients write it in image names."""
        return f"{self.host}:{self.registry_port}"

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose ARGUMENTS`.

        Raises:
            ServiceError: it failed, unless `check` is false.
        """
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("STOWAGE_", "REGISTRY_", "COMPOSE_"))
        }
        done = subprocess.run(
            [str(require_tool("docker-compose")), "--project-name", self.name, *arguments],
            env={**inherited, "DOCKER_HOST": self.docker.host, "DOCKER_CONFIG": str(self.docker.config)},
            cwd=self.folder / "compose",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
        if check and done.returncode != 0:
            logs = "" if arguments[0] == "logs" else self.compose("logs", "--tail=40", check=False).stdout
            raise ServiceError(f"compose {' '.join(arguments)}: {done.stdout}{done.stderr}{logs}")
        return done

    def start(self) -> None:
        """Start what does not run, and wait until everything is healthy.

        Raises:
            ServiceError: a job failed, or a service is not healthy in time.
        """
        self.compose("up", "--detach", "--wait", f"--wait-timeout={_START_TIMEOUT}")

    def remove(self) -> None:
        """Stop everything and delete its data."""
        self.compose("down", "--volumes", "--timeout=1")

    def read(self, service: str, path: str) -> str:
        """A file of a service's volumes, as the documentation reads secrets."""
        run = ("run", "--rm", "--no-deps", "--entrypoint", "cat", service, path)
        return self.compose(*run).stdout.strip()

    @cached_property
    def secret_key(self) -> str:
        """The administrator's API key."""
        return self.read("bootstrap", "/run/secrets/bootstrap/secret_key")

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """Trusts the certificate of the installation and no other."""
        certificate = self.compose("exec", "-T", "nginx", "cat", "/run/secrets/nginx/tls.crt").stdout
        return ssl.create_default_context(cadata=certificate)

    def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Call the management API as the administrator."""
        return httpx.request(
            method,
            f"https://localhost:{self.https_port}{path}",
            headers={"X-Auth-Token": self.secret_key},
            json=body or None,
            verify=self.tls,
            timeout=60,
        )

    def client(self, *, anonymous: bool = False) -> OciClient:
        """An OCI client with the administrator's key, or without any."""
        return OciClient(self.registry, None if anonymous else self.secret_key, self.tls)

    def gateway(self, network: str) -> str:
        """The machine's address in a network of the installation."""
        format_ = "{{(index .IPAM.Config 0).Gateway}}"
        return self.docker("network", "inspect", "--format", format_, f"{self.name}_{network}").stdout.strip()

    def stored_bytes(self) -> int:
        """The size of the objects in the bucket. MinIO frees the space of deleted ones some minutes later."""
        # du fails, and still counts, if a file is deleted meanwhile.
        counted = self.compose("exec", "-T", "minio", "du", "-sb", "/data/stowage", check=False)
        return int(counted.stdout.split()[0])


def make_installation(
    name: str, folder: Path, docker: DockerClient, *, host: str = "localhost", **settings: str
) -> Installation:
    """An installation that does not run yet: a copy of `.env.example` with other ports and these settings."""
    shutil.copytree(ROOT / "deploy", folder)
    installation = Installation(name, folder, docker, host, free_port(), free_port())
    environment = (folder / "compose" / ".env.example").read_text(encoding="utf-8")
    changed = {
        "STOWAGE_REGISTRY": installation.registry,
        "STOWAGE_REGISTRY_PORT": str(installation.registry_port),
        "STOWAGE_HTTPS_PORT": str(installation.https_port),
        "STOWAGE_HTTP_PORT": str(free_port()),
        **settings,
    }
    for variable, value in changed.items():
        environment = re.sub(rf"^{variable}=.*\n", "", environment, flags=re.MULTILINE)
        environment += f"{variable}={value}\n"
    (folder / "compose" / ".env").write_text(environment, encoding="utf-8")
    return installation
