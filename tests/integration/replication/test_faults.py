"""Lost content, hostile sources, and workers that are late."""

import os

import pytest

from registry_control.catalog.models import Blob
from registry_control.namespaces.models import Namespace
from registry_control.replication.models import ExecutionStatus, Target
from registry_data.storage.base import BlobStore, Key
from tests.factories import TestKey, push_image
from tests.integration.replication.scene import make_rule, run_rule

pytestmark = pytest.mark.django_db(transaction=True)


def test_images_that_share_a_blob_that_cannot_be_copied_fail_together(
    owner: TestKey, namespace: Namespace, target: Target, store: BlobStore
) -> None:
    # given two tags, of which the first is tried before the second one is looked at
    layer = os.urandom(1000)
    push_image(owner, namespace, layers=(layer,), tags=("one",), store=store)
    push_image(owner, namespace, layers=(layer, b"more"), tags=("two",), store=store)
    store.delete(Key(Blob.objects.get(size=len(layer)).storage_key))

    # when they are replicated, then the execution ends
    done = run_rule(owner, make_rule(owner, namespace, target))
    assert (done.status, done.images_total, done.images_done) == (ExecutionStatus.FAILED, 2, 0)
    assert len(done.errors) == 1
    assert "its bytes are missing in the storage" in done.errors[0]
