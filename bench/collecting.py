"""Measures the deletion of many dead blobs on PostgreSQL: `python -m bench.collecting`.

First without clients, at full speed in one process: the time, the statements and the memory for each number
of blobs. Then a running product deletes the largest number at its own pace, while clients pull and push;
their rates and latencies are compared with those at rest, measured right before. The rows of the blobs are
written with SQL, and the disk has no content of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from bench.client import Connection, Steps
from bench.content import MANIFEST, config, fixed, manifest, unique
from bench.measure import Get, Load, Loop, Run, Wrk, measure
from bench.registry import NAMESPACE, Registry
from bench.sides import stowage
from bench.uploads import authorized, monolithic
from bench.work import KIB
from tests.services.postgres import running_postgres
from tests.services.stack import ROOT

_PULLED: Final = f"{NAMESPACE}/pulled"
_PUSHED: Final = f"{NAMESPACE}/pushed"
_KEPT: Final = 0.85
_BEGINS: Final = 60.0  # seconds within which the worker must have deleted something
_POLL: Final = 0.1
_NO_LIMIT: Final = {"REGISTRY_GC_BREAKER": "0", "REGISTRY_GC_GRACE": "86400"}

_BLOBS: Final = """
WITH made AS (
    INSERT INTO catalog_blob (digest, size, storage_key, state, created_at)
    SELECT 'sha256:' || encode(sha256(convert_to(%(name)s || n, 'UTF8')), 'hex'), 1000,
           'blobs/sha256/' || left(encode(sha256(convert_to(%(name)s || n, 'UTF8')), 'hex'), 2) || '/'
               || encode(sha256(convert_to(%(name)s || n, 'UTF8')), 'hex') || '.'
               || md5(%(name)s || n), 'live', now()
    FROM generate_series(1, %(blobs)s) n RETURNING id
)
INSERT INTO catalog_blobreview (blob_id, cause, unreferenced_since, attempts, error)
SELECT id, 'manifest deleted', now() - interval '30 days', 0, '' FROM made
"""


class Collected(NamedTuple):
    """The cost of one deletion of all dead blobs."""

    blobs: int
    seconds: float
    statements: int
    memory: int  # bytes by which the process grew


class Pair(NamedTuple):
    """One kind of request at rest and during the deletion."""

    name: str
    rest: Run
    busy: Run


class _Counter:
    """Counts the statements that Django executes."""

    statements = 0

    def __call__(self, execute: Callable[..., object], *arguments: object) -> object:
        self.statements += 1
        return execute(*arguments)


def fill(url: str, blobs: int, name: str) -> None:
    """Insert dead blobs, which are due."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_BLOBS, {"name": name, "blobs": blobs})
        connection.execute("VACUUM ANALYZE catalog_blob, catalog_blobreview")


def collect() -> None:
    """Delete all dead blobs in this process, and print the cost as JSON."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_control.settings")
    django.setup()

    from django.conf import settings
    from django.db import connection

    from registry_control.common.clock import database_now
    from registry_control.common.store import blob_store
    from registry_control.gc.policy import Rules
    from registry_control.gc.services.collector import collect_batch
    from registry_control.gc.services.figures import count_new

    counter = _Counter()
    store = blob_store()
    store.check()
    removed, before, began = 0, 0, time.monotonic()
    with connection.execute_wrapper(counter):
        while count_new(Rules(database_now(), settings.GC_GRACE), limit=500):
            before = before or _resident()
        while True:
            batch = collect_batch(store=store, rules=Rules(database_now(), settings.GC_GRACE), limit=200)
            removed += batch.removed
            if not batch.is_full:
                break
    cost = Collected(removed, time.monotonic() - began, counter.statements, _resident() - before)
    print(json.dumps(cost._asdict()))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Return the exit status: 1 if clients kept less than their share."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="stowage-bench-") as made, ExitStack() as cleanup:
        folder = Path(made)
        server = cleanup.enter_context(running_postgres(folder / "postgres"))
        print("| dead blobs | time | blobs/s | statements for each blob | memory |\n|---|---|---|---|---|")
        for blobs in options.blobs:
            url = server.create_database(f"dead_{blobs}")
            print(_line(_alone(url, blobs, folder / f"alone-{blobs}")), flush=True)
        url = server.create_database("clients")
        pairs = _beside_clients(url, max(options.blobs), options.seconds, folder / "clients", cleanup)
    print("\n| requests | at rest | p99 | during the deletion | p99 | kept | p99 kept |\n" + "|---" * 7 + "|")
    for name, rest, busy in pairs:
        print(
            f"| {name} | {rest.rate:,.0f} /s | {rest.p99 * 1000:.1f} ms | {busy.rate:,.0f} /s"
            f" | {busy.p99 * 1000:.1f} ms | {busy.rate / rest.rate:.2f} | {rest.p99 / busy.p99:.2f} |"
        )
    return int(any(min(pair.busy.rate / pair.rest.rate, 1) < _KEPT for pair in pairs))


def _alone(url: str, blobs: int, folder: Path) -> Collected:
    environment = {
        **os.environ,
        "REGISTRY_DATABASE_URL": url,
        "REGISTRY_STATE_DIR": str(folder),
        **_NO_LIMIT,
    }
    run = partial(subprocess.run, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    run([sys.executable, "manage.py", "migrate", "--verbosity=0"])
    fill(url, blobs, "alone")
    done = run([sys.executable, "-c", "from bench.collecting import collect; collect()"])
    return Collected(**json.loads(done.stdout.splitlines()[-1]))


def _line(cost: Collected) -> str:
    return (
        f"| {cost.blobs:,} | {cost.seconds:.1f} s | {cost.blobs / cost.seconds:,.0f}"
        f" | {cost.statements / max(cost.blobs, 1):.3f} | {cost.memory / 2**20:+.0f} MiB |"
    )


def _beside_clients(url: str, blobs: int, seconds: float, folder: Path, cleanup: ExitStack) -> Sequence[Pair]:
    registry = stowage(folder, cleanup, REGISTRY_DATABASE_URL=url, **_NO_LIMIT)
    cleanup.callback(registry.http.close)
    layer, configuration = fixed(KIB), config()
    for blob in (layer, configuration):
        registry.put_blob(_PULLED, blob)
    registry.put_manifest(_PULLED, "latest", manifest(configuration, layer))
    rest = _runs(registry, seconds)
    fill(url, blobs, "clients")
    _wait_for_deletions(url, blobs)
    busy = _runs(registry, seconds)
    left = _queued(url)
    print(f"\n{blobs - left:,} of {blobs:,} blobs were deleted meanwhile", flush=True)
    if not left:
        print("The deletion ended before the measurement: use more blobs or fewer seconds", file=sys.stderr)
    return [Pair(name, rest[name], busy[name]) for name in rest]


def _wait_for_deletions(url: str, blobs: int) -> None:
    """Wait until the worker has begun to delete."""
    deadline = time.monotonic() + _BEGINS
    while _queued(url) >= blobs:
        if time.monotonic() > deadline:
            raise SystemExit(f"the worker has deleted nothing within {_BEGINS:g} seconds")
        time.sleep(_POLL)


def _queued(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM catalog_blobreview").fetchone()
    return int(found[0]) if found else 0


def _runs(registry: Registry, seconds: float) -> dict[str, Run]:
    registry.forget_tokens()
    registry.take_tokens([_PULLED, _PUSHED])
    size = manifest(config(), fixed(KIB)).size
    loads: dict[str, tuple[Load, int]] = {
        "pulls": (Wrk([Get(f"/v2/{_PULLED}/manifests/latest", registry.authorization(_PULLED), size)]), 16),
        "pushes": (Loop(_pushes(authorized(registry.authorization(_PUSHED)))), 4),
    }
    return {name: measure(load, registry, number, seconds) for name, (load, number) in loads.items()}


def _pushes(headers: str) -> Iterator[partial[Steps]]:
    for number in count():
        yield partial(_push, number=number, headers=headers)


def _push(connection: Connection, *, number: int, headers: str) -> Steps:
    configuration, layer = config(f"{number}-{time.monotonic_ns()}"), unique(8 * KIB)
    for blob in (layer, configuration):
        yield from monolithic(connection, repository=_PUSHED, headers=headers, blob=blob)
    kind = f"Content-Type: {MANIFEST}\r\n"
    target = f"/v2/{_PUSHED}/manifests/tag-{number % 50}"
    body = manifest(configuration, layer).parts
    yield from connection.call("PUT", target, headers + kind, *body, expect=201)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.collecting", description=__doc__)
    parser.add_argument("--blobs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement with clients")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
