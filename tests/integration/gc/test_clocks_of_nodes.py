"""A node whose clock is years ahead or behind: no time that anything expires by is its own."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from django.apps import apps
from django.db.models import DateTimeField, Max, Min
from django.test import override_settings
from django.utils import timezone

from registry_control.catalog.models import Manifest, Tag, TagHistory
from registry_control.catalog.services import deletion, images, manifests, tags, uploads
from registry_control.common import clock
from registry_control.common.clock import database_now
from registry_control.gc.models import RetentionRun
from registry_control.gc.services import enforcement, runs
from registry_control.namespaces.models import Namespace
from registry_control.recycling.services import emptying
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, push_image
from tests.integration.control.api import Api
from tests.integration.gc import retaining
from tests.integration.gc.recycling import restore

pytestmark = pytest.mark.django_db(transaction=True)

YEARS: Final = timedelta(days=3650)
_APPS: Final = ("catalog", "common", "gc", "integrity", "namespaces", "recycling")
# Shown, and never compared: of what an administrator or the API has changed.
_ONLY_SHOWN: Final = {"image.updated_at", "namespace.created_at", "namespace.updated_at"}
_TOLERANCE: Final = timedelta(hours=1)  # MarkedBytes and the runs have the beginning of the hour


@pytest.fixture(params=[YEARS, -YEARS], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[timedelta]:
    """The error of this node's clock, which neither the database nor SQLite's functions have."""
    error: timedelta = request.param

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + error

    monkeypatch.setattr(clock, "datetime", Wrong)
    monkeypatch.setattr(timezone, "datetime", Wrong)
    assert abs(clock.now() - datetime.now(UTC)) > YEARS / 2
    assert abs(database_now() - datetime.now(UTC)) < _TOLERANCE
    with override_settings(
        RECYCLE_BIN=timedelta(days=7), UPLOAD_LIFE=timedelta(days=1), BLOB_LEASE=timedelta(days=1)
    ):
        yield error


def test_all_times_are_those_of_the_database(
    owner: TestKey, namespace: Namespace, store: FilesystemStore, wrong: timedelta
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
    _check_times()
    assert TagHistory.objects.count() == 1
    assert RetentionRun.objects.count() == 1


def test_what_is_restored_has_the_time_of_the_database(
    owner: TestKey, namespace: Namespace, wrong: timedelta
) -> None:
    pushed = push_image(owner, namespace, tags=("a", "b"))
    tag = Tag.objects.get(name="a")
    for path in (f"/tags/{tag.pk}", f"/images/{pushed.image_id}", f"/namespaces/{namespace.pk}"):
        Api(owner).delete(path)
        assert restore(owner).status == 200
        _check_times()
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=Manifest.objects.get().digest)
    assert restore(owner, "other").status == 200
    _check_times()


def _check_times() -> None:
    moment = database_now()
    earliest, latest = moment - _TOLERANCE, moment + timedelta(days=8)
    for label in _APPS:
        for model in apps.get_app_config(label).get_models():
            for field in model._meta.get_fields():
                name = f"{model._meta.model_name}.{field.name}"
                if not isinstance(field, DateTimeField) or name in _ONLY_SHOWN:
                    continue
                found = model._default_manager.aggregate(low=Min(field.name), high=Max(field.name))
                for value in found.values():
                    assert value is None or earliest <= value <= latest, (name, value)
