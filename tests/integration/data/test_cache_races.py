"""Cached responses during concurrent writes: none is older than the last write confirmed before it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from tests.oci_client import OciClient, digest_of, image_manifest
from tests.tenants import LAYER, Tenants

SECONDS = 4.0
CONFIG = b'{"architecture":"amd64","os":"linux"}'


@dataclass
class Failures:
    """Runs functions in threads until a time limit or the first failure."""

    found: list[str] = field(default_factory=list)
    ends_at: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    @property
    def are_awaited(self) -> bool:
        return not self.found and time.monotonic() < self.ends_at

    def run(self, *works: Callable[[], None]) -> None:
        def guarded(work: Callable[[], None]) -> None:
            try:
                while self.are_awaited:
                    work()
            except Exception as error:  # noqa: BLE001 - shown by the test
                self.found.append(repr(error))

        threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.found == []


def test_invariant_5_a_moved_tag_never_returns_an_older_manifest(tenants: Tenants) -> None:
    """A writer moves a tag, and counts each move when it is confirmed; others push elsewhere meanwhile."""
    # given an image, another one, and readers with tokens of their own
    repository, elsewhere = tenants.repository(), tenants.repository()
    manifests = [_manifest(number) for number in range(2000)]
    for name in (repository, elsewhere):
        tenants.owner.push_image(name, "first", LAYER)
    numbers: dict[str, int] = {}
    confirmed, next_number = [-1], iter(range(len(manifests)))
    failures = Failures()

    def move() -> None:
        number = next(next_number)
        numbers[digest_of(manifests[number])] = number
        assert writer.put_manifest(repository, "latest", manifests[number]).status_code == 201
        confirmed[0] = number

    def push_elsewhere() -> None:
        other.put_manifest(elsewhere, uuid4().hex, _manifest(uuid4().hex))
        other.start_upload(elsewhere)

    def read(client: OciClient) -> Callable[[], None]:
        def once() -> None:
            before = confirmed[0]
            response = client.on(repository, "HEAD", "manifests/latest")
            seen = numbers.get(response.headers.get("docker-content-digest", ""), -1)
            assert seen >= before, f"saw {seen} after {before} was confirmed"

        return once

    with _clients(tenants, 5) as (writer, other, *readers):
        failures.run(move, push_elsewhere, *map(read, readers))
    assert confirmed[0] > 5


def test_invariant_5_a_change_of_visibility_applies_to_every_later_pull(tenants: Tenants) -> None:
    """An image is made public and private while anonymous clients pull it and another client pushes to it."""
    repository = tenants.image_with_policies(is_public=False, visibility="public")
    failures = Failures()
    epoch = [0]  # odd while a change is under way
    statuses: set[int] = set()

    def switch() -> None:
        visibility = "private" if epoch[0] % 4 == 0 else "public"
        epoch[0] += 1
        tenants.set_image(repository, visibility=visibility)
        epoch[0] += 1
        time.sleep(0.05)

    def push() -> None:
        assert writer.put_manifest(repository, "latest", _manifest(uuid4().hex)).status_code == 201

    def read(client: OciClient) -> Callable[[], None]:
        def once() -> None:
            before = epoch[0]
            status = client.http.get(f"/v2/{repository}/manifests/latest").status_code
            if before % 2 == 0 and epoch[0] == before:
                expected = 401 if before % 4 else 200
                assert status == expected, f"{status} in epoch {before}"
                statuses.add(status)

        return once

    with _clients(tenants, 4) as (writer, *readers):
        failures.run(switch, push, *map(read, readers))
    assert statuses == {200, 401}


@contextmanager
def _clients(tenants: Tenants, number: int) -> Iterator[list[OciClient]]:
    made = [OciClient(tenants.owner.host, tenants.owner.secret) for _ in range(number)]
    try:
        yield made
    finally:
        for client in made:
            client.http.close()


def _manifest(note: object) -> bytes:
    return json.dumps(image_manifest(CONFIG, [LAYER], annotations={"note": str(note)})).encode()
