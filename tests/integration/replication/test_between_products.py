"""Pushing to a running product and pulling it back: on both databases, without other programs."""

import os

import httpx
import pytest

from registry_control.catalog.models import Image, Manifest
from registry_control.namespaces.models import Namespace
from registry_control.replication.models import Direction, ExecutionStatus
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, make_namespace
from tests.integration.replication.content import Local, image_manifest, index_manifest
from tests.integration.replication.scene import make_rule, make_target, run_rule
from tests.services.stack import Stack

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_signed_index_is_pushed_and_pulled_back(
    owner: TestKey, namespace: Namespace, store: BlobStore, stack: Stack
) -> None:
    # given an index with a signature, and another product with a namespace
    local = Local(owner, namespace, "app", store)
    layers = [os.urandom(100_000) for _ in range(2)]
    children = [image_manifest(layer) for layer in layers]
    for child, layer in zip(children, layers, strict=True):
        local.push(child, layer)
    index = index_manifest(*children)
    local.push(index, tags=["v1", "latest"])
    local.push(image_manifest(b"signature", subject=index), b"signature")
    credentials, place = stack.credentials, f"mirror-{namespace.pk.hex[:12]}"
    created = httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        json={"name": place},
        headers={"X-Auth-Token": credentials.secret_key},
    )
    assert created.status_code == 200
    url = f"http://{credentials.registry_host}"
    target = make_target(owner, url, username="robot", password=credentials.secret_key)

    # when it is pushed there, and pulled into another namespace
    pushing = make_rule(owner, namespace, target, destination=f"{place}/{{image}}")
    back = make_namespace(owner)
    pulling = make_rule(owner, back, target, Direction.PULL, repositories=[f"{place}/*"])
    for rule in (pushing, pulling):
        first, second = run_rule(owner, rule), run_rule(owner, rule)

        # then everything is sent once
        assert (first.status, first.errors, first.images_done) == (ExecutionStatus.SUCCEEDED, [], 2)
        assert first.bytes_done == first.bytes_total
        assert (second.status, second.bytes_done) == (ExecutionStatus.SUCCEEDED, 0)

    # and both namespaces have the same
    digests, sizes = [], []
    for image in Image.objects.filter(namespace__in=(namespace, back)):
        digests.append(set(Manifest.objects.filter(image=image).values_list("digest", flat=True)))
        sizes.append(image.size)
    assert digests[0] == digests[1]
    assert sizes[0] == sizes[1]
    assert len(digests[0]) == 4
