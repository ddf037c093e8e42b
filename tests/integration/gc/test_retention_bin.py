"""Retention with a recycle bin: what it removes can be restored."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import override_settings

from registry_control.catalog.models import Image
from registry_control.namespaces.models import RecycleBinEntry
from tests.factories import make_key, make_namespace
from tests.integration.gc.retaining import enforce, manifests_of, new_image, preview, push, set_rules, tags_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _bin() -> Iterator[None]:
    with override_settings(RECYCLE_BIN=timedelta(days=7)):
        yield


def test_removed_tags_and_manifests_are_in_the_recycle_bin() -> None:
    # given an old tag, and an old untagged index with a child, a signature and a plain manifest
    owner = make_key()
    namespace = make_namespace(owner)
    image_id = new_image(owner, namespace)
    tagged = push(owner, image_id, "old", days=9)
    child = push(owner, image_id, days=9)
    index = push(owner, image_id, days=9, children=[child])
    signature = push(owner, image_id, days=9, subject=index)
    plain = push(owner, image_id, days=9)
    set_rules(namespace, {"keep_days_since_tagged": 5}, untagged_days=5)

    # when passes run, then all is in the bin but the child, which waits until its index has left the bin
    enforce(namespace)
    run = enforce(namespace)
    assert tags_of(image_id) == []
    assert manifests_of(image_id) == {tagged, child}
    assert (run.tags, run.manifests) == (0, 0)
    assert preview(owner, namespace)["tags"] == []
    found = RecycleBinEntry.objects.values_list("name", "deleted_by")
    image = Image.objects.get(pk=image_id)
    names = [f"{image}:old", *(f"{image}@{digest}" for digest in (index, signature, plain))]
    assert sorted(found) == sorted((name, "system") for name in names)
