"""While PostgreSQL takes no writes, pulls go on; their times wait in bounded memory until it does."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import psycopg
import pytest
from django.db import DatabaseError, connection

from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.services import pulls as catalog
from registry_control.catalog.services.pulls import Recorded
from registry_data.http.pulls import pulls_hook
from registry_data.registry import pulls
from registry_data.registry.pulls import Pull, PullRecorder
from tests.factories import make_key, make_namespace, push_image
from tests.integration.data.plane import Plane, basic
from tests.services.waiting import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.only_on("postgresql")]

CAPACITY = 300


@contextmanager
def _altered(during: str, after: str) -> Iterator[None]:
    """Alter the database for new sessions, such as the recorder opens for each attempt."""
    name = connection.settings_dict["NAME"]
    parameters = {**connection.get_connection_params(), "dbname": "postgres"}
    with psycopg.connect(**parameters, autocommit=True) as administrator:
        administrator.execute(f'ALTER DATABASE "{name}" {during}')
        try:
            yield
        finally:
            administrator.execute(f'ALTER DATABASE "{name}" {after}')


def read_only() -> AbstractContextManager[None]:
    """As a standby is after a failover."""
    return _altered("SET default_transaction_read_only = on", "RESET default_transaction_read_only")


def refusing() -> AbstractContextManager[None]:
    """As a server that starts, or has no connection left."""
    return _altered("WITH ALLOW_CONNECTIONS false", "WITH ALLOW_CONNECTIONS true")


@pytest.mark.parametrize("outage", [read_only, refusing])
def test_pulls_go_on_and_their_times_are_written_after_the_outage(
    outage: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[float] = []

    def record(ages: Mapping[Pull, float]) -> Recorded:
        try:
            return catalog.record(ages)
        except DatabaseError:
            failures.append(time.monotonic())
            raise

    # given an image, and a data plane that records pulls
    monkeypatch.setattr(pulls, "CAPACITY", CAPACITY)
    owner = make_key()
    namespace = make_namespace(owner)
    pushed = push_image(owner, namespace, "app", tags=("latest", "other"))
    recorder = PullRecorder(record, interval=0.1)
    plane = Plane(pulls_hook(recorder))

    def pull(tag: str) -> int:
        response, _ = plane.get("GET", f"/v2/{namespace.name}/app/manifests/{tag}", basic(owner.secret))
        return response.status_code

    def is_recorded(tag: str) -> bool:
        return Tag.objects.get(name=tag).last_pulled_at is not None

    try:
        assert pull("other") == 200
        wait_until(lambda: is_recorded("other"))

        # when the database takes no writes, then clients get what they pull
        with outage():
            assert {pull("latest") for _ in range(20)} == {200}
            wait_until(lambda: len(failures) >= 4)
            assert pull("latest") == 200
            assert not is_recorded("latest")

            # and attempts to write become rare, while the memory for what waits is bounded
            assert failures[3] - failures[2] > 0.4
            for number in range(CAPACITY * 4):
                recorder.note(Pull(uuid4(), number, None))
            assert len(recorder._pending) <= CAPACITY  # noqa: SLF001

        # when it takes them again, then the times are written, and nothing is left in memory
        wait_until(lambda: is_recorded("latest"))
        assert Manifest.objects.get(digest=pushed.digest).last_pulled_at is not None
        assert Image.objects.get(pk=pushed.image_id).last_pulled_at is not None
        wait_until(lambda: not recorder._pending)  # noqa: SLF001
    finally:
        recorder.close()
        plane.close()
