"""Measures what scrubbing and replication cost clients: `python -m bench.background`.

A product on PostgreSQL is filled with images. Clients pull and push in turn at rest and while a worker scrubs
all content, which is due, or while a rule replicates images to distribution v3 on the same machine.
`bench.collecting` measures the deletion of dead blobs.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
from tests.services.waiting import wait_until

_FILLED: Final = f"{NAMESPACE}/filled"
_TAGS_EACH: Final = 20  # images of one repository
_LAYER: Final = MIB
_BEGINS: Final = 120.0  # seconds within which the work must have begun or ended
_DUE: Final = "UPDATE catalog_blob SET verified_at = now() - interval '60 days'"
_NOT_DUE: Final = "UPDATE catalog_blob SET verified_at = now()"
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


def _fill(registry: Registry, images: int, *, names: str) -> None:
    """Push images to repositories whose names begin with `names`."""
    for number in range(images):
        repository = f"{names}-{number // _TAGS_EACH}"
        layer, configuration = unique(_LAYER), config(f"{names} {number}")
        registry.put_blob(repository, layer)
        registry.put_blob(repository, configuration)
        registry.put_manifest(repository, f"v{number}", manifest(configuration, layer))


def _scrubbing(url: str, folder: Path, options: argparse.Namespace, stops: ExitStack) -> list[beside.Pair]:
    """All content is due, and is read at the rate of the default settings."""
    product = _product(url, folder, stops)
    _fill(product.registry, options.images * options.rounds, names=_FILLED)
    database = stops.enter_context(psycopg.connect(url, autocommit=True))

    @contextmanager
    def scrub(_: int) -> Iterator[None]:
        due = database.execute(_DUE).rowcount
        wait_until(lambda: _due(database) < due, timeout=_BEGINS)
        before = _due(database)
        yield
        print(f"{before - _due(database)} of {due} blobs were read meanwhile", flush=True)
        database.execute(_NOT_DUE)

    return beside.alternating(product.registry, options, scrub)


def _due(database: psycopg.Connection[tuple[int]]) -> int:
    """How many blobs are due."""
    found = database.execute(
        "SELECT count(*) FROM catalog_blob WHERE verified_at < now() - interval '1 day'"
    ).fetchone()
    assert found is not None
    return found[0]


def _replicating(url: str, folder: Path, options: argparse.Namespace, stops: ExitStack) -> list[beside.Pair]:
    """A rule of each round pushes images that the target does not have."""
    product = _product(url, folder, stops, REGISTRY_SCRUB_PERIOD="0")
    mirror = Running(_side(REFERENCE), folder / "mirror")
    stops.callback(mirror.stop)
    target = product.call(
        "POST", f"{_REPLICATION}/targets", {"name": "mirror", "url": f"http://{mirror.registry.host}"}
    )["id"]
    rules = []
    for number in range(options.rounds):
        names = f"{_FILLED}-{number}"
        _fill(product.registry, options.images, names=names)
        rules.append(_rule(product, target, names))

    @contextmanager
    def replicate(number: int) -> Iterator[None]:
        execution = product.call("POST", f"{_REPLICATION}/rules/{rules[number]}/run")["id"]
        path = f"{_REPLICATION}/executions/{execution}"
        wait_until(lambda: product.call("GET", path)["images_done"] > 0, timeout=_BEGINS)
        before = product.call("GET", path)["images_done"]
        yield
        now = product.call("GET", path)
        print(f"{now['images_done'] - before} images were replicated meanwhile", flush=True)
        if now["status"] != "running":
            raise SystemExit("the replication ended before the measurement: use more --images")
        product.call("POST", f"{path}/cancel")
        wait_until(lambda: product.call("GET", path)["status"] != "running", timeout=_BEGINS)

    return beside.alternating(product.registry, options, replicate)


def _side(name: str) -> Side:
    return next(side for side in SIDES if side.name == name)


def _rule(product: Product, target: str, names: str) -> str:
    """Make a rule that pushes the repositories whose names begin with `names`; returns its id."""
    found = product.call("GET", f"{_REGISTRY_V1}/namespaces?name={NAMESPACE}")
    rule = {
        "name": names.replace("/", "-"),
        "direction": "push",
        "target_id": target,
        "namespace_id": found["namespaces"][0]["id"],
        "repositories": [f"{names.removeprefix(f'{NAMESPACE}/')}-*"],
    }
    return str(product.call("POST", f"{_REPLICATION}/rules", rule)["id"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.background", description=__doc__)
    parser.add_argument("--works", nargs="+", choices=_WORKS, default=_WORKS, help="what to measure (all)")
    parser.add_argument("--images", type=int, default=300, help="of 1 MiB for each round (300)")
    beside.add_options(parser)
    return parser.parse_args()


_WORKS: Final[Mapping[str, Callable[[str, Path, argparse.Namespace, ExitStack], list[beside.Pair]]]] = {
    "scrub": _scrubbing,
    "replication": _replicating,
}

if __name__ == "__main__":
    sys.exit(main())
