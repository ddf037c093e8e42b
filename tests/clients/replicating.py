"""The replication API of a running product, as an operator uses it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx

from tests.oci_client import OciClient
from tests.services.stack import Stack
from tests.services.waiting import wait_until

REPLICATION: Final = "/replication/v1beta1/regions/fr-par"
FINAL: Final = ("succeeded", "failed", "cancelled")
Json = dict[str, Any]


@dataclass(frozen=True)
class Replicator:
    """A product that replicates, with the first credentials, and its clients."""

    stack: Stack
    http: httpx.Client
    oci: OciClient

    @property
    def host(self) -> str:
        return self.oci.host

    def call(self, method: str, path: str, **body: Any) -> Json:
        """A call of the replication API that must succeed."""
        response = self.http.request(method, f"{REPLICATION}/{path}", json=body or None)
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    def namespace(self) -> Json:
        """A new namespace."""
        created = self.http.post("/registry/v1/regions/fr-par/namespaces", json={"name": unique("ns")})
        assert created.status_code == 200, created.text
        found: Json = created.json()
        return found

    def target(self, host: str, *, username: str = "", password: str = "") -> Json:
        """A new target over plain HTTP."""
        return self.call(
            "POST",
            "targets",
            name=unique("target"),
            url=f"http://{host}",
            username=username,
            password=password,
        )

    def rule(self, direction: str, target: Json, namespace: Json, **fields: Any) -> Json:
        """A new rule; by default for all repositories of the namespace."""
        return self.call(
            "POST",
            "rules",
            name=unique("rule"),
            direction=direction,
            target_id=target["id"],
            namespace_id=namespace["id"],
            **{"repositories": ["*"], **fields},
        )

    def run(self, rule: Json, *, timeout: float = 60) -> Json:
        """Run a rule by hand and wait for the end of the execution."""
        return self.ended(self.call("POST", f"rules/{rule['id']}/run"), timeout=timeout)

    def ended(self, execution: Json, *, timeout: float = 60) -> Json:
        """An execution after its end."""
        wait_until(lambda: self.execution(execution)["status"] in FINAL, timeout=timeout)
        return self.execution(execution)

    def execution(self, execution: Json) -> Json:
        """An execution as it is now."""
        return self.call("GET", f"executions/{execution['id']}")

    def executions(self, rule: Json) -> list[Json]:
        """The executions of a rule."""
        found: list[Json] = self.call("GET", f"executions?rule_id={rule['id']}")["executions"]
        return found

    def kill_worker(self) -> None:
        """Kill the process that replicates, as a crash would; `up` starts another one."""
        os.kill(self.worker(), signal.SIGKILL)

    def worker(self) -> int:
        """The process id of the worker for the queue `bulk`."""
        return int((self.stack.state_dir / "run" / "worker-bulk.pid").read_text(encoding="ascii"))


@contextmanager
def replicating(stack: Stack) -> Iterator[Replicator]:
    """The clients of a running product."""
    credentials = stack.credentials
    headers = {"X-Auth-Token": credentials.secret_key}
    with (
        httpx.Client(base_url=credentials.control_url, headers=headers, timeout=30) as control,
        OciClient(credentials.registry_host, credentials.secret_key) as oci,
    ):
        yield Replicator(stack, control, oci)


def unique(word: str) -> str:
    return f"{word}-{uuid4().hex[:12]}"
