"""Short names for what the tests of the recycle bin do."""

from datetime import timedelta
from typing import Final

from registry_control.catalog.services import deletion
from registry_control.common.clock import now
from registry_control.namespaces.models import RecycleBinEntry
from registry_control.recycling.services import emptying
from registry_data.storage.base import BlobStore
from tests.factories import TestKey
from tests.integration.control.api import Api, Response

V1BETA1: Final = "/registry/v1beta1/regions/fr-par"
BIN: Final = f"{V1BETA1}/recycle-bin"
PERIOD: Final = timedelta(days=7)


def entry_id(key: TestKey) -> str:
    """The id of the only entry."""
    body = Api(key).get(BIN).body
    assert body["total_count"] == 1, body
    found: str = body["entries"][0]["id"]
    return found


def restore(key: TestKey, name: str | None = None) -> Response:
    """Restore the only entry."""
    return Api(key).post(f"{BIN}/{entry_id(key)}/restore", name=name)


def finish(store: BlobStore) -> None:
    """Let the worker do all that it has to do."""
    while emptying.settle(entries=10, limit=100):
        pass
    while emptying.expire(limit=100):
        pass
    while deletion.run_batch(store=store, limit=100):
        pass


def expire() -> None:
    """Let the time of all entries be over."""
    RecycleBinEntry.objects.update(expires_at=now())
