"""Measures what scrubbing and replication cost clients: `python -m bench.background`.

A product on PostgreSQL is filled with images. Clients pull and push at rest, while a worker scrubs all
content, which is due, and while a rule replicates the images to distribution v3 on the same machine.
`bench.collecting` measures the deletion of dead blobs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from bench import beside
from bench.content import config, manifest, unique
from bench.registry import NAMESPACE, Registry
from bench.sides import REFERENCE, SIDES, Running, Side
from bench.work import MIB
from tests.services.postgres import running_postgres
from tests.services.stack import Credentials, Stack

_FILLED: Final = f"{NAMESPACE}/filled"
_TAGS_EACH: Final = 20  # images of one repository
_LAYER: Final = MIB
_BEGINS: Final = 120.0  # seconds within which the work must have begun
_POLL: Final = 0.2
_DUE: Final = "UPDATE catalog_blob SET verified_at = now() - interval '60 days'"
_REGISTRY_V1: Final = "/registry/v1/regions/fr-par"
_REGISTRY: Final = "/registry/v1beta1/regions/fr-par"
_REPLICATION: Final = "/replication/v1beta1/regions/fr-par"


class Product:
    """A running product with its management API."""

    def __init__(self, stack: Stack) -> None:
        self.credentials: Final[Credentials] = stack.credentials
        self.registry: Final = Registry(self.credentials.registry_host, self.credentials.secret_key)
        self._http: Final = httpx.Client(
            base_url=self.credentials.control_url,
            headers={"X-Auth-Token": self.credentials.secret_key},
            timeout=60,
        )

    def call(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._http.request(method, path, json=body).raise_for_status().json()
        return found

    def close(self) -> None:
        self._http.close()
        self.registry.http.close()


def main() -> int:
    """Return the exit status: 1 if clients kept less than their share."""
    options = _options()
    found: dict[str, list[beside.Pair]] = {}
    with tempfile.TemporaryDirectory(prefix="stowage-bench-") as made, ExitStack() as cleanup:
        folder = Path(made)
        server = cleanup.enter_context(running_postgres(folder / "postgres", durable=True))
        for name in options.works:
            with ExitStack() as stops:
                found[name] = _WORKS[name](server.create_database(name), folder / name, options, stops)
            print(f"\n{name}\n\n{beside.as_markdown(found[name])}", flush=True)
    return int(not all(pair.is_within_budget for pairs in found.values() for pair in pairs))


def _product(url: str, folder: Path, stops: ExitStack, **environment: str) -> Product:
    settings = {"REGISTRY_DATABASE_URL": url, "REGISTRY_EGRESS_ALLOW": "127.0.0.1", **environment}
    product = Product(stops.enter_context(Stack(folder, environment=settings)))
    stops.callback(product.close)
    product.call("POST", f"{_REGISTRY_V1}/namespaces", {"name": NAMESPACE})
    beside.seed(product.registry)
    return product


def _fill(registry: Registry, images: int) -> None:
    for number in range(images):
        repository = f"{_FILLED}-{number // _TAGS_EACH}"
        layer, configuration = unique(_LAYER), config(f"filled {number}")
        registry.put_blob(repository, layer)
        registry.put_blob(repository, configuration)
        registry.put_manifest(repository, f"v{number}", manifest(configuration, layer))


def _scrubbing(url: str, folder: Path, options: argparse.Namespace, stops: ExitStack) -> list[beside.Pair]:
    """All content is due, and is read at the rate of the default settings."""
    product = _product(url, folder, stops)
    _fill(product.registry, options.images)
    rest = beside.rounds(product.registry, options)  # an upload counts as a verification
    with psycopg.connect(url, autocommit=True) as connection:
        due = connection.execute(_DUE).rowcount
        busy = beside.rounds(product.registry, options)
        left = connection.execute(
            "SELECT count(*) FROM catalog_blob WHERE verified_at < now() - interval '1 day'"
        )
        print(f"\n{due - (left.fetchone() or (0,))[0]} of {due} blobs were read meanwhile", flush=True)
    return beside.pairs(rest, busy)


def _replicating(url: str, folder: Path, options: argparse.Namespace, stops: ExitStack) -> list[beside.Pair]:
    product = _product(url, folder, stops, REGISTRY_SCRUB_PERIOD="0")
    _fill(product.registry, options.images)
    mirror = Running(_side(REFERENCE), folder / "mirror")
    stops.callback(mirror.stop)
    rule = _rule(product, mirror.registry.host)
    rest = beside.rounds(product.registry, options)
    execution = product.call("POST", f"{_REPLICATION}/rules/{rule}/run")["id"]
    path = f"{_REPLICATION}/executions/{execution}"
    deadline = time.monotonic() + _BEGINS
    while not product.call("GET", path)["images_done"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"no image was replicated within {_BEGINS:g} seconds")
        time.sleep(_POLL)
    busy = beside.rounds(product.registry, options)
    now = product.call("GET", path)
    print(f"\nreplicated: {now['images_done']} of {options.images} images, {now['status']}", flush=True)
    if now["status"] != "running":
        print(
            "The replication ended before the measurement: use more images or fewer seconds", file=sys.stderr
        )
    return beside.pairs(rest, busy)


def _side(name: str) -> Side:
    return next(side for side in SIDES if side.name == name)


def _rule(product: Product, host: str) -> str:
    """Make a rule that pushes what was filled to a registry; returns its id."""
    found = product.call("GET", f"{_REGISTRY_V1}/namespaces?name={NAMESPACE}")
    target = product.call("POST", f"{_REPLICATION}/targets", {"name": "mirror", "url": f"http://{host}"})
    rule = {
        "name": "filled",
        "direction": "push",
        "target_id": target["id"],
        "namespace_id": found["namespaces"][0]["id"],
        "repositories": [f"{_FILLED.removeprefix(f'{NAMESPACE}/')}-*"],
    }
    return str(product.call("POST", f"{_REPLICATION}/rules", rule)["id"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.background", description=__doc__)
    parser.add_argument("--works", nargs="+", choices=_WORKS, default=_WORKS, help="what to measure (all)")
    parser.add_argument("--images", type=int, default=1500, help="of 1 MiB in the registry (1500)")
    beside.add_options(parser)
    return parser.parse_args()


_WORKS: Final[Mapping[str, Callable[[str, Path, argparse.Namespace, ExitStack], list[beside.Pair]]]] = {
    "scrub": _scrubbing,
    "replication": _replicating,
}

if __name__ == "__main__":
    sys.exit(main())
