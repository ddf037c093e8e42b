"""A collector that is killed at any step: the next one finishes, and database and storage agree."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.integration.standalone.product import count, row
from tests.services.stack import Stack

# Deletes an image of six blobs, and kills this process in the collector.
_KILLED: Final = """
import os, signal, sys
from contextlib import ExitStack
from django.db import connection
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.gc.policy import Rules
from registry_control.gc.services import collector
from tests.factories import make_key, make_namespace, push_image
from tests.integration.gc.steps import GRACE, delete_image, expire_leases

store = blob_store()
store.check()
owner = make_key()
namespace = make_namespace(owner)
push_image(owner, namespace, "kept", layers=[b"shared"], config=b"kept config", store=store)
layers = [b"shared", *(b"layer %d" % number for number in range(5))]
delete_image(push_image(owner, namespace, layers=layers, config=b"own config", store=store), store)
expire_leases()
point = POINT
calls = iter(range(1000))


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    def delete(self, key):
        if point == "content" and next(calls) == 3:
            die()
        store.delete(key)


def statement(execute, sql, *arguments):
    if point in sql:
        die()
    return execute(sql, *arguments)


with connection.execute_wrapper(statement):
    collector.collect_batch(store=Dying(), rules=Rules(now(), GRACE, ignore_grace=True), limit=100)
sys.exit("the collector was not killed")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "UPDATE catalog_blob SET state",  # step 1, not committed
        "content",  # step 2, in the middle
        "DELETE FROM catalog_blob WHERE",  # step 3, not committed
        "INSERT INTO gc_gcrun",  # the end of step 3
    ],
)
def test_a_killed_collector_is_finished_by_the_next(make_stack: Callable[..., Stack], point: str) -> None:
    # given a collector that was killed: no row is lost, and shared content is untouched
    stack = make_stack()
    killed = stack.manage("shell", "-c", _KILLED.replace("POINT", repr(point)), check=False)
    assert killed.returncode == -9, killed.stderr
    assert count(stack, "catalog_blob") == 8
    assert count(stack, "catalog_blobreview") >= 6

    # when the next one runs, then the same content is gone as without the kill
    done = json.loads(stack.manage("gc", "--now", "--json").stdout)
    assert (done["blobs"], done["waiting"]) == (6, [])
    assert count(stack, "catalog_blobreview") == 0
    assert row(stack, "SELECT count(*) FROM audit_auditevent WHERE verb = 'blob.removed'") == (6,)
    assert _stored_keys(stack.state_dir / "storage") == _named_keys(stack)


def _stored_keys(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / "blobs").rglob("*") if path.is_file()}


def _named_keys(stack: Stack) -> set[str]:
    found = stack.manage(
        "shell",
        "-c",
        "from registry_control.catalog.models import Blob\n"
        "for key in Blob.objects.values_list('storage_key', flat=True): print('key', key)",
    )
    return {line.removeprefix("key ") for line in found.stdout.splitlines() if line.startswith("key ")}
