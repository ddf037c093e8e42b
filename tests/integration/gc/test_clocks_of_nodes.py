"""A node whose clock is years ahead or behind: no time that anything expires by is its own."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest
from django.test import override_settings

from registry_control.catalog.models import Manifest, Tag, TagHistory
from registry_control.catalog.services import deletion, images, manifests, tags, uploads
from registry_control.gc.models import RetentionRun
from registry_control.gc.services import enforcement, runs
from registry_control.namespaces.models import Namespace
from registry_control.recycling.services import emptying
from registry_data.storage.filesystem import FilesystemStore
from tests.clocks import YEARS, check_times, wrong_clock_of_the_node
from tests.factories import TestKey, push_image
from tests.integration.control.api import Api
from tests.integration.gc import retaining
from tests.integration.gc.recycling import restore

pytestmark = pytest.mark.django_db(transaction=True)

_APPS: Final = ("catalog", "common", "gc", "integrity", "namespaces", "recycling")
# Shown, and never compared: of what an administrator or the API has changed.
_ONLY_SHOWN: Final = {"image.updated_at", "namespace.created_at", "namespace.updated_at"}


@pytest.fixture(params=[YEARS, -YEARS], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    life = {"UPLOAD_LIFE": timedelta(days=1), "BLOB_LEASE": timedelta(days=1)}
    with wrong_clock_of_the_node(request.param), override_settings(RECYCLE_BIN=timedelta(days=7), **life):
        yield


@pytest.mark.usefixtures("wrong")
def test_all_times_are_those_of_the_database(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given a push, a moved tag, an untag, deletions, an upload and a run, all through this node
    first = push_image(owner, namespace, tags=("a", "b"), layers=[b"first"], store=store)
    second = push_image(owner, namespace, tags=("a",), layers=[b"second"], store=store)
    assert first.image_id == second.image_id
    tags.untag(actor=owner.actor, image_id=first.image_id, name="b")
    image = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="uploading")
    uploads.start(actor=owner.actor, image_id=image, algorithm="sha256")
    for name in ("deleted", "purged"):
        deleted = push_image(owner, namespace, name, layers=[name.encode()], store=store)
        Api(owner).delete(f"/images/{deleted.image_id}")
    with override_settings(RECYCLE_BIN=timedelta(0)):
        tag = Tag.objects.get(name="a")
        Api(owner).delete(f"/tags/{tag.pk}")
        emptying.empty(limit=1)
        while deletion.run_batch(store=store, limit=100):
            pass
    retaining.set_rules(namespace, {"keep_days_since_tagged": 1}, enabled=True, untagged_days=1)
    enforcement.enforce(seconds=10)
    runs.close_old()

    # then every time in the tables is that of the database
    check_times(*_APPS, only_shown=_ONLY_SHOWN)
    assert TagHistory.objects.count() == 1
    assert RetentionRun.objects.count() == 1


@pytest.mark.usefixtures("wrong")
def test_what_is_restored_has_the_time_of_the_database(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace, tags=("a", "b"))
    tag = Tag.objects.get(name="a")
    for path in (f"/tags/{tag.pk}", f"/images/{pushed.image_id}", f"/namespaces/{namespace.pk}"):
        Api(owner).delete(path)
        assert restore(owner).status == 200
        check_times(*_APPS, only_shown=_ONLY_SHOWN)
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=Manifest.objects.get().digest)
    assert restore(owner, "other").status == 200
    check_times(*_APPS, only_shown=_ONLY_SHOWN)
