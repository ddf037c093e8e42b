"""Which requests count as pulls, and that a running registry records them."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Self

import httpx
import pytest
from django.db import connection

from registry_control.catalog.models import Manifest
from registry_control.common.clock import now
from registry_data.http.pulls import pulls_hook
from registry_data.registry.pulls import Pull, PullRecorder
from tests.factories import make_key, make_namespace, push_image
from tests.integration.data.plane import Plane, basic
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, OciClient, descriptor
from tests.services.stack import Stack
from tests.services.waiting import wait_until

REGION = "/registry/v1/regions/fr-par"


class Noted(PullRecorder):
    """The pulls that were noted, which nothing records."""

    def __init__(self) -> None:
        super().__init__()
        self.pulls: list[Pull] = []

    def note(self, pull: Pull) -> None:
        self.pulls.append(pull)

    def take(self) -> list[Pull]:
        taken, self.pulls = self.pulls, []
        return taken


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch, noted: Noted) -> Iterator[Plane]:
    if connection.vendor == "sqlite":
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # which a data plane sets, for this test only
    made = Plane(pulls_hook(noted))
    yield made
    made.close()


@pytest.mark.django_db(transaction=True)
def test_gets_heads_and_304s_of_manifests_count_as_pulls_also_from_the_cache(
    plane: Plane, noted: Noted
) -> None:
    owner = make_key()
    namespace = make_namespace(owner)
    pushed = push_image(owner, namespace, "app")
    manifest = Manifest.objects.get(digest=pushed.digest).pk
    by_tag = Pull(pushed.image_id, manifest, pushed.tag("latest").pk)
    by_digest = Pull(pushed.image_id, manifest, None)
    path, headers = f"/v2/{namespace.name}/app", basic(owner.secret)

    for method in ("GET", "HEAD"):
        for reference, expected in (("latest", by_tag), (pushed.digest, by_digest)):
            for from_cache in (False, True, True):
                response = plane.get(method, f"{path}/manifests/{reference}", headers)
                assert (response[0].status_code, response[1]) == (200, from_cache)
                assert noted.take() == [expected]
    conditional = headers | {"If-None-Match": f'"{pushed.digest}"'}
    assert plane.get("GET", f"{path}/manifests/latest", conditional)[0].status_code == 304
    assert noted.take() == [by_tag]


@pytest.mark.django_db(transaction=True)
def test_nothing_else_counts_as_a_pull(plane: Plane, noted: Noted) -> None:
    owner, stranger = make_key(), make_key()
    namespace = make_namespace(owner)
    pushed = push_image(owner, namespace, "app")
    path, headers = f"/v2/{namespace.name}/app", basic(owner.secret)
    for method, rest, sent in [
        ("GET", "/manifests/missing", headers),
        ("GET", "/manifests/latest", {}),
        ("GET", "/manifests/latest", basic(stranger.secret)),
        ("GET", "/manifests/latest", headers | {"If-Match": '"sha256:other"'}),
        ("HEAD", f"/blobs/{pushed.blobs[0]}", headers),
        ("GET", "/tags/list", headers),
        ("GET", f"/referrers/{pushed.digest}", headers),
        ("DELETE", "/manifests/latest", headers),
    ]:
        for _ in range(2):
            plane.get(method, path + rest, sent)
            assert noted.take() == [], (method, rest)


class Registry:
    """A running product with two data processes and one image, whose tags `pull` pulls."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.repository = stack, "pulled/app"
        self.credentials = stack.credentials
        headers = {"X-Auth-Token": self.credentials.secret_key}
        self.api = httpx.Client(base_url=self.credentials.control_url, headers=headers, timeout=30)
        assert self.api.post(f"{REGION}/namespaces", json={"name": "pulled"}).status_code == 200

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def client(self) -> OciClient:
        return OciClient(self.credentials.registry_host, self.credentials.secret_key)

    def pull(self, reference: str) -> int:
        """Pull over a new connection, which any process may accept."""
        with self.client() as client:
            return client.on(self.repository, "GET", f"manifests/{reference}").status_code

    def image(self) -> dict[str, Any]:
        (image,) = self.api.get(f"{REGION}/images").json()["images"]
        return dict(image)

    def tags(self) -> dict[str, str | None]:
        """Tag to the time of its last pull."""
        listed = self.api.get(f"{REGION}/images/{self.image()['id']}/tags", params={"page_size": 100})
        return {tag["name"]: tag["last_pulled_at"] for tag in listed.json()["tags"]}

    def manifests(self) -> dict[str, str | None]:
        """Digest to the time of its last pull."""
        path, query = "/registry/v1beta1/regions/fr-par/manifests", {"image_id": self.image()["id"]}
        listed = self.api.get(path, params=query).json()["manifests"]
        return {manifest["digest"]: manifest["last_pulled_at"] for manifest in listed}

    def data_processes(self) -> list[int]:
        return [pid for pid, command in self.stack.processes().items() if "serve data" in command]


def is_recent(time: str | None) -> bool:
    return time is not None and abs(now() - datetime.fromisoformat(time)) < timedelta(minutes=2)


@pytest.mark.only_on("sqlite")  # how PostgreSQL is written to is tested with the catalogue
def test_pulls_of_all_processes_are_recorded_soon_and_at_a_stop(make_stack: Callable[..., Stack]) -> None:
    # given an index with one image, and further tags
    with Registry(make_stack(REGISTRY_DATA_WORKERS="2").start()) as registry:
        _push_pull_kill_and_stop(registry)


def _push_pull_kill_and_stop(registry: Registry) -> None:
    tags = [f"v{number}" for number in range(6)]
    with registry.client() as client:
        child = client.push_image(registry.repository, "child", b"layer")
        pushed = client.on(registry.repository, "GET", f"manifests/{child}").content
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(pushed, OCI_MANIFEST)]}
        for tag in ("index", "never", "killed", "late", *tags):
            answer = client.put_manifest(registry.repository, tag, index)
            assert answer.status_code == 201
    unpulled = registry.image()

    # when tags are pulled in several processes, then their times, and those of all that was pulled, are set
    assert {registry.pull(tag) for tag in tags} == {200}
    wait_until(lambda: all(is_recent(registry.tags()[tag]) for tag in tags))
    wait_until(lambda: all(map(is_recent, registry.manifests().values())))
    times = registry.tags()
    assert [tag for tag, time in times.items() if time is None] == [
        "child",
        "index",
        "never",
        "killed",
        "late",
    ]
    image = registry.image()
    assert image == unpulled | {"last_pulled_at": image["last_pulled_at"]}
    assert is_recent(image["last_pulled_at"])

    # when the processes are killed right after a pull, then those that follow record the next one
    registry.pull("killed")
    for pid in sorted(registry.data_processes()):  # parents first, because they would restart their children
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: registry.pull("killed") == 200)
    wait_until(lambda: is_recent(registry.tags()["killed"]))

    # when the product stops right after a pull, then that is recorded
    assert registry.pull("late") == 200
    registry.stack.stop()
    code = (
        "from registry_control.catalog.models import Tag; print(Tag.objects.get(name='late').last_pulled_at)"
    )
    assert is_recent(registry.stack.manage("shell", "-c", code).stdout.strip().splitlines()[-1])
