"""Processes, responses and rows of a running product."""

import sqlite3
from contextlib import closing
from typing import Any, Final

import httpx
import psycopg

from tests.services.processes import descendants
from tests.services.stack import Stack

REGION: Final = "/registry/v1/regions/fr-par"


def main_process(stack: Stack, name: str) -> int:
    """The process of `serve NAME` that `up` has started."""
    return next(pid for pid, command in stack.processes().items() if f"serve {name}" in command)


def server_process(stack: Stack, name: str) -> int:
    """One of the worker processes of a server."""
    return next(iter(descendants(main_process(stack, name))))


def serves(stack: Stack, name: str) -> bool:
    """Whether this one of the three processes is ready."""
    try:
        if name == "worker":
            sign = (stack.state_dir / "run" / "worker.pid").read_text(encoding="ascii")
            return int(sign) == main_process(stack, "worker")
        credentials = stack.credentials
        address = credentials.control_url if name == "control" else f"http://{credentials.registry_host}"
        return httpx.get(f"{address}/healthz").status_code == 200
    except (httpx.TransportError, OSError, ValueError, StopIteration):
        return False


def api(stack: Stack, method: str, path: str, *, base: str = REGION, **body: object) -> dict[str, Any]:
    """Call the management API with the first key."""
    credentials = stack.credentials
    response = httpx.request(
        method,
        f"{credentials.control_url}{base}{path}",
        headers={"X-Auth-Token": credentials.secret_key},
        json=body or None,
        timeout=30,
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def row(stack: Stack, query: str) -> tuple[object, ...]:
    """The first row of a query, read directly from the database."""
    url = stack.environment.get("REGISTRY_DATABASE_URL")
    if url:
        with psycopg.connect(url) as postgres:
            return tuple(postgres.execute(query).fetchall()[0])
    with closing(sqlite3.connect(stack.state_dir / "registry.sqlite3", timeout=30)) as sqlite:
        return tuple(sqlite.execute(query).fetchone())


def count(stack: Stack, table: str) -> int:
    """Number of rows of the table, read directly from the database."""
    return int(str(row(stack, f"SELECT count(*) FROM {table}")[0]))
