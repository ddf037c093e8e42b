"""Measures the deletion of many dead blobs on PostgreSQL: `python -m bench.collecting`.

First without clients, at full speed in one process: the time, the statements and the memory for each number
of blobs. Then a running product deletes the largest number at its own pace, while clients pull and push;
their rates and latencies are compared with those at rest, measured right before: medians of several rounds,
because one p99 of a few seconds says little. The rows of the blobs are written with SQL, and the disk has no
content of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from bench import beside
from bench.sides import stowage
from tests.services.postgres import running_postgres
from tests.services.stack import ROOT

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
        pairs = _beside_clients(url, max(options.blobs), options, folder / "clients", cleanup)
    print(f"\n{beside.as_markdown(pairs)}")
    return int(not all(pair.is_within_budget for pair in pairs))


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


def _beside_clients(
    url: str, blobs: int, options: argparse.Namespace, folder: Path, cleanup: ExitStack
) -> Sequence[beside.Pair]:
    registry = stowage(folder, cleanup, REGISTRY_DATABASE_URL=url, **_NO_LIMIT)
    cleanup.callback(registry.http.close)
    beside.seed(registry)
    rest = beside.rounds(registry, options)
    fill(url, blobs, "clients")
    _wait_for_deletions(url, blobs)
    busy = beside.rounds(registry, options)
    left = _queued(url)
    print(f"\n{blobs - left:,} of {blobs:,} blobs were deleted meanwhile", flush=True)
    if not left:
        print("The deletion ended before the measurement: use more blobs or fewer seconds", file=sys.stderr)
    return beside.pairs(rest, busy)


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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.collecting", description=__doc__)
    parser.add_argument("--blobs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    beside.add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
