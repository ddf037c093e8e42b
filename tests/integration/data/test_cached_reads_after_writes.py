"""After every write service, a data plane with caches sends the same responses as one without."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client, override_settings

from registry_control.access.services import rotate_signing_keys
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob
from registry_control.catalog.services import blobs, deletion, images, manifests, tags, uploads
from registry_control.common.models import Change
from registry_control.common.store import blob_store
from registry_control.identity import services as identity
from registry_control.identity.models import ApiKey, Application, Policy
from registry_control.identity.permission_sets import PermissionSet
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.services import faults
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import restoring
from registry_data.oci.media_types import OCI_MANIFEST
from tests.factories import (
    READ_ONLY,
    Pushed,
    TestKey,
    digest_of,
    make_key,
    make_namespace,
    make_user,
    push_blob,
    push_image,
    unique,
)
from tests.integration.admin.forms import fields, url
from tests.integration.data.plane import Plane, basic
from tests.integration.gc.steps import collect
from tests.integration.growth.watched import request

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class World:
    """A public namespace with two images, and keys that may and may not pull them."""

    owner: TestKey = field(default_factory=make_key)
    reader: TestKey = field(init=False)
    without_rights: TestKey = field(init=False)
    stranger: TestKey = field(default_factory=make_key)
    namespace: Namespace = field(init=False)
    app: Pushed = field(init=False)
    other: Pushed = field(init=False)

    def __post_init__(self) -> None:
        organization = self.owner.organization
        self.reader = make_key(READ_ONLY, organization=organization)
        self.without_rights = make_key(organization=organization, rights=False)
        self.namespace = make_namespace(self.owner, is_public=True)
        self.app = push_image(self.owner, self.namespace, "app", tags=("latest", "old"))
        self.other = push_image(self.owner, self.namespace, "other", layers=(b"another layer",))

    @property
    def application(self) -> Application:
        assert isinstance(self.reader.holder, Application)
        return self.reader.holder

    @property
    def policy(self) -> Policy:
        return Policy.objects.get(application=self.application)

    def push_manifest(self, image_id: Any, *tag_names: str, subject: str = "") -> None:
        payload = json.dumps({"schemaVersion": 2, "note": unique("note")}).encode()
        new = manifests.NewManifest(
            digest=digest_of(payload),
            media_type=OCI_MANIFEST,
            payload=payload,
            blobs=frozenset(),
            children=frozenset(),
            subject=subject,
            artifact_type="",
            descriptor=b'{"digest":"%s"}' % digest_of(payload).encode() if subject else b"",
        )
        manifests.put(actor=self.owner.actor, image_id=image_id, new=new, tag_names=tag_names)

    def admin(self) -> Client:
        client = Client()
        client.force_login(make_user(is_administrator=True, password="a long password"))
        return client

    def post(self, row: Any, **changes: Any) -> None:
        """Change a row through its page in the Django administration."""
        client, page = self.admin(), url(type(row), "change", row.pk)
        sent: dict[str, Any] = {**fields(client.get(page).content), **changes}
        sent = {name: value for name, value in sent.items() if value is not None}
        assert client.post(page, sent).status_code == 302

    def act(self, row: Any, action: str) -> None:
        """Run an action of a list in the Django administration."""
        sent = {"action": action, "_selected_action": [str(row.pk)]}
        assert self.admin().post(url(type(row), "changelist"), sent).status_code == 302

    def delete(self, row: Any) -> None:
        """Delete a row through its page in the Django administration."""
        assert self.admin().post(url(type(row), "delete", row.pk), {"post": "yes"}).status_code == 302


Write = Callable[[World], Any]

WRITES: Final[dict[str, Write]] = {
    "push that moves a tag": lambda w: w.push_manifest(w.app.image_id, "latest"),
    "push of a new tag": lambda w: w.push_manifest(w.app.image_id, "new"),
    "push of a referrer": lambda w: w.push_manifest(w.app.image_id, subject=w.app.digest),
    "first push of an image": lambda w: push_image(w.owner, w.namespace, "third"),
    "untag": lambda w: tags.untag(actor=w.owner.actor, image_id=w.app.image_id, name="old"),
    "tag deletion": lambda w: tags.delete(principal=w.owner.principal, tag_id=w.app.tag("old").pk),
    "manifest deletion": lambda w: manifests.delete(
        actor=w.owner.actor, image_id=w.app.image_id, digest=w.app.digest
    ),
    "image becomes private": lambda w: images.update(
        principal=w.owner.principal, image_id=w.app.image_id, visibility="private"
    ),
    "image deletion": lambda w: images.delete(principal=w.owner.principal, image_id=w.app.image_id),
    "namespace becomes private": lambda w: namespaces.update(
        principal=w.owner.principal, namespace_id=w.namespace.pk, description=None, is_public=False
    ),
    "namespace deletion": lambda w: namespaces.delete(
        principal=w.owner.principal, namespace_id=w.namespace.pk
    ),
    "namespace recreated by another tenant": lambda w: _take_over(w),
    "key deletion": lambda w: call_command("delete_key", w.reader.access_key),
    "policy": lambda w: identity.grant_policy(
        actor=SYSTEM, holder=w.without_rights.holder, permission_set=PermissionSet.READ_ONLY
    ),
    "sparse indexes": lambda w: call_command("sparse_indexes", w.namespace.name, "accept"),
    "damaged content": lambda w: _quarantine(w),
    "healed content": lambda w: _heal(w),
    "admin: namespace private": lambda w: w.act(w.namespace, "make_private"),
    "admin: image private": lambda w: w.act(w.app.image, "make_private"),
    "admin: application inactive": lambda w: w.post(w.application, is_active=None),
    "admin: key expired": lambda w: w.post(
        ApiKey.objects.get(pk=w.reader.access_key), expires_at_0="2020-01-01", expires_at_1="00:00:00"
    ),
    "admin: key deleted": lambda w: w.delete(ApiKey.objects.get(pk=w.reader.access_key)),
    "admin: policy deleted": lambda w: w.delete(w.policy),
    "admin: rule removed": lambda w: w.post(w.policy, **{"rules-0-DELETE": "on"}),
    "admin: application deleted": lambda w: w.delete(w.application),
    "admin: tag deleted": lambda w: w.delete(w.app.tag("old")),
    "admin: image deleted": lambda w: w.delete(w.app.image),
    "admin: namespace deleted": lambda w: w.delete(w.namespace),
}

NO_CHANGES: Final[dict[str, Write]] = {
    "upload": lambda w: uploads.start(actor=w.owner.actor, image_id=w.app.image_id, algorithm="sha256"),
    "blob and its lease": lambda w: push_blob(w.owner, w.app.image_id, b"unique"),
    "upload to a new image": lambda w: images.get_or_create(
        actor=w.owner.actor, namespace_id=w.namespace.pk, name="fresh"
    ),
    "the same push again": lambda w: push_image(w.owner, w.namespace, "app", tags=("latest", "old")),
    "new namespace": lambda w: make_namespace(w.owner),
    "expired leases": lambda w: deletion.remove_expired_leases(limit=100),
    "garbage collection": lambda w: _collect_a_blob(w),
    "signing key": lambda w: rotate_signing_keys(),
}


def _collect_a_blob(world: World) -> None:
    digest = push_blob(world.owner, world.app.image_id, b"unused")
    pk = Blob.objects.get(digest=digest).pk
    blobs.remove(actor=world.owner.actor, image_id=world.app.image_id, blob_id=pk, digest=digest)
    store = blob_store()
    store.check()
    assert collect(store).removed == 1


def _quarantine(world: World) -> Blob:
    blob = Blob.objects.get(digest=world.app.blobs[1])
    assert faults.settle(blob.pk, key=blob.storage_key, finding=Finding(Content.DAMAGED, "other bytes"))
    return blob


def _heal(world: World) -> None:
    _quarantine(world)
    push_blob(world.owner, world.app.image_id, b"a layer")


def _take_over(world: World) -> None:
    namespaces.delete(principal=world.owner.principal, namespace_id=world.namespace.pk)
    again = make_namespace(world.stranger, world.namespace.name)
    push_image(world.stranger, again, "app")


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    if connection.vendor == "sqlite":
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # which a data plane sets, for this test only
    made = Plane()
    yield made
    made.close()


def reads(world: World) -> list[tuple[str, str, dict[str, str]]]:
    """Every kind of cached read, by every kind of caller."""
    repository = f"/v2/{world.namespace.name}/app"
    paths = [
        ("GET", f"{repository}/manifests/latest"),
        ("HEAD", f"{repository}/manifests/old"),
        ("GET", f"{repository}/manifests/new"),
        ("GET", f"{repository}/manifests/{world.app.digest}"),
        ("HEAD", f"{repository}/blobs/{world.app.blobs[1]}"),
        ("GET", f"{repository}/tags/list"),
        ("GET", f"{repository}/referrers/{world.app.digest}"),
        ("GET", f"/v2/{world.namespace.name}/other/manifests/latest"),
        ("GET", f"/v2/{world.namespace.name}/third/manifests/latest"),
        ("GET", "/v2/_catalog"),
    ]
    callers = (world.owner, world.reader, world.without_rights, world.stranger)
    credentials: list[dict[str, str]] = [{}, *(basic(key.secret) for key in callers)]
    return [(method, path, headers) for method, path in paths for headers in credentials]


def _shown(response: httpx.Response) -> tuple[int, bytes, str]:
    return response.status_code, response.content, response.headers.get("docker-content-digest", "")


@pytest.mark.parametrize("name", WRITES)
def test_invariant_5_every_response_after_a_write_matches_the_database(
    plane: Plane, tmp_path: Path, name: str
) -> None:
    # given responses of every kind in the cache
    world = World()
    wanted = reads(world)
    for _ in range(2):
        cached = [plane.get(*read)[1] for read in wanted]
    assert sum(cached) > 20

    # when a write service changes a row
    recorded = Change.objects.count()
    WRITES[name](world)

    # then the change is recorded, and every response equals that of a data plane without caches
    assert Change.objects.count() > recorded
    for method, path, headers in wanted:
        truth = request(tmp_path, method, path, headers=headers).response
        assert _shown(plane.get(method, path, headers)[0]) == _shown(truth), (method, path, headers)

    # and also after the worker has deleted the rows
    deletion.run_batch(store=blob_store(), limit=100)
    for method, path, headers in wanted[:10]:
        truth = request(tmp_path, method, path, headers=headers).response
        assert _shown(plane.get(method, path, headers)[0]) == _shown(truth), (method, path, headers)


@pytest.mark.parametrize("name", ["untag", "manifest deletion", "image deletion", "namespace deletion"])
def test_invariant_5_what_is_deleted_and_restored_is_gone_and_there_at_once(
    plane: Plane, tmp_path: Path, name: str
) -> None:
    world = World()
    wanted = [read for read in reads(world) if read[2] in ({}, basic(world.owner.secret))]

    def restore(world: World) -> None:
        entry = RecycleBinEntry.objects.get()
        restoring.restore(principal=world.owner.principal, entry_id=entry.pk, name=None)

    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        for write in (WRITES[name], restore):
            for read in wanted * 2:  # fill the cache
                plane.get(*read)
            write(world)
            for method, path, headers in wanted:
                truth = request(tmp_path, method, path, headers=headers).response
                assert _shown(plane.get(method, path, headers)[0]) == _shown(truth), (method, path, headers)


@pytest.mark.parametrize("name", NO_CHANGES)
def test_a_write_that_changes_no_response_evicts_nothing(plane: Plane, name: str) -> None:
    world = World()
    wanted = reads(world)
    for _ in range(2):
        cached = [plane.get(*read)[1] for read in wanted]
    recorded = Change.objects.count()
    NO_CHANGES[name](world)
    if name != "new namespace" and name != "the same push again":
        assert Change.objects.count() == recorded
    assert [plane.get(*read)[1] for read in wanted] == cached


def test_a_push_to_one_image_does_not_evict_the_responses_of_another(plane: Plane) -> None:
    world = World()
    wanted = reads(world)
    for _ in range(2):
        cached = [plane.get(*read)[1] for read in wanted]
    world.push_manifest(world.other.image_id, "latest")
    for (method, path, headers), before in zip(wanted, cached, strict=True):
        expected = before and "/other/" not in path
        assert plane.get(method, path, headers)[1] == expected, (method, path)
