"""Verifies that acknowledged changes survive cut connections, killed processes and restarts: `make soak`.

Clients push, pull and delete while their connections are cut, data processes are killed and the whole product
is restarted. At the end, acknowledged content must be complete, deleted content must be gone, and no
temporary rows or files may remain.
"""

import argparse
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.soak.collector import SETTINGS, Goal, soak_collector
from bench.soak.record import Record
from bench.soak.run import soak
from tests.services.minio import running_minio
from tests.services.postgres import running_postgres
from tests.services.redis import running_redis
from tests.services.stack import Stack


def main() -> int:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="stowage-soak-"))
    record = _soak(arguments, folder)
    record.report()
    if record.failures:
        print(f"\nseed {arguments.seed}; everything the product wrote is in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _soak(arguments: argparse.Namespace, folder: Path) -> Record:
    with _backing(folder, arguments.database, arguments.storage) as environment:
        print(
            f"{arguments.clients} clients for {arguments.minutes:g} minutes on {arguments.database} and"
            f" {arguments.storage}, seed {arguments.seed}\n",
            flush=True,
        )
        if arguments.collector:
            return _soak_collector(arguments, folder, environment)
        with Stack(folder / "product", environment=environment) as stack:
            return soak(stack, clients=arguments.clients, seconds=arguments.minutes * 60, seed=arguments.seed)


def _soak_collector(arguments: argparse.Namespace, folder: Path, environment: Mapping[str, str]) -> Record:
    """Run two nodes, each with a data process and a worker; on SQLite one node with two data processes."""
    number = 1 if arguments.database == "sqlite" else 2
    shared = {
        "REGISTRY_SECRET_KEY": secrets.token_urlsafe(48),
        "REGISTRY_STORAGE_URL": f"file://{folder}/storage",
        "REGISTRY_DATA_WORKERS": str(2 // number),
        **environment,
        **SETTINGS,
    }
    goal = Goal(arguments.minutes * 60, arguments.events, arguments.kills)
    with ExitStack() as running:
        nodes = [
            running.enter_context(Stack(folder / f"node-{each}", environment=shared))
            for each in range(number)
        ]
        return soak_collector(nodes, clients=arguments.clients, goal=goal, seed=arguments.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--storage", choices=["disk", "minio"], default="disk")
    parser.add_argument(
        "--collector", action="store_true", help="test garbage collection, with periods of seconds"
    )
    parser.add_argument(
        "--events", type=int, default=0, help="with --collector: run until there were so many"
    )
    parser.add_argument(
        "--kills", type=int, default=0, help="with --collector: the same for kills of processes"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is done; not of when it happens")
    return parser.parse_args()


@contextmanager
def _backing(folder: Path, database: str, storage: str) -> Iterator[dict[str, str]]:
    """Start the servers that the product depends on, and return its settings."""
    environment = {}
    with ExitStack() as cleanup:
        if database == "postgresql":
            postgres = cleanup.enter_context(running_postgres(folder / "postgres", durable=True))
            redis = cleanup.enter_context(running_redis(folder / "redis"))
            environment["REGISTRY_DATABASE_URL"] = postgres.create_database("registry")
            environment["REGISTRY_REDIS_URL"] = redis.url()
        if storage == "minio":
            minio = cleanup.enter_context(running_minio(folder / "minio"))
            environment["REGISTRY_STORAGE_URL"] = minio.url("soak")
        yield environment


if __name__ == "__main__":
    sys.exit(main())
