"""Steps of the tests of retention: content of any age, rules, passes and previews."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import F

from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.services import images, manifests
from registry_control.common.clock import now
from registry_control.gc.models import RetentionRun
from registry_control.gc.retention import parse
from registry_control.gc.services import enforcement, retention
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_manifest, push_blob
from tests.integration.control.api import Api


def new_image(owner: TestKey, namespace: Namespace, name: str = "app") -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=name)


def push(
    owner: TestKey,
    image_id: UUID,
    *names: str,
    days: float = 0,
    children: Sequence[str] = (),
    subject: str = "",
    layers: int = 1,
) -> str:
    """Push a manifest with a unique layer, with or without tags, some days ago; returns its digest."""
    blobs = [push_blob(owner, image_id, os.urandom(10)) for _ in range(layers)]
    new = make_manifest(blobs, children=children, subject=subject)
    manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=names)
    age(image_id, new.digest, days=days)
    return new.digest


def retag(owner: TestKey, image_id: UUID, digest: str, *names: str) -> None:
    """Push a manifest again that the image has."""
    stored = Manifest.objects.get(image=image_id, digest=digest)
    same = replace(make_manifest(), digest=digest, payload=bytes(stored.payload))
    manifests.put(actor=owner.actor, image_id=image_id, new=same, tag_names=names)


def age(image_id: UUID, digest: str, *, days: float) -> None:
    """Let a manifest and its tags be older."""
    found = Manifest.objects.filter(image=image_id, digest=digest)
    past = timedelta(days=days)
    found.update(created_at=F("created_at") - past, untagged_at=F("untagged_at") - past)
    Tag.objects.filter(manifest__in=found).update(updated_at=F("updated_at") - past)


def pulled(image_id: UUID, *, days: float, tag: str = "", digest: str = "") -> None:
    """Record a pull some days ago."""
    at = now() - timedelta(days=days)
    Tag.objects.filter(image=image_id, name=tag).update(last_pulled_at=at)
    Manifest.objects.filter(image=image_id, digest=digest).update(last_pulled_at=at)


def set_rules(namespace: Namespace, *rules: dict[str, Any], **fields: Any) -> None:
    """Store a retention; a rule is for all images and tags unless it has globs."""
    whole = [{"images": "*", "tags": "*", **rule} for rule in rules]
    retention.store(namespace, parse({"rules": whole, **fields}), actor=SYSTEM)


def enforce(namespace: Namespace, *, seconds: float = 60) -> RetentionRun:
    """Run a whole pass."""
    RetentionRun.objects.filter(pk=namespace.pk).update(due_at=now())
    for _ in range(1000):
        enforcement.enforce(seconds=seconds)
        run = RetentionRun.objects.get(pk=namespace.pk)
        if run.finished_at is not None:
            return run
    raise AssertionError("the pass never ended")


def tags_of(image_id: UUID) -> list[str]:
    return sorted(Tag.objects.filter(image=image_id).values_list("name", flat=True))


def manifests_of(image_id: UUID) -> set[str]:
    return set(Manifest.objects.filter(image=image_id).values_list("digest", flat=True))


def preview(owner: TestKey, namespace: Namespace, body: object = None) -> dict[str, Any]:
    path = f"/registry/v1beta1/regions/fr-par/namespaces/{namespace.pk}/retention/preview"
    response = Api(owner).call("POST", path, body)
    assert response.status == 200, response
    assert set(response.body) == {"tags", "manifests", "bytes"}
    found: dict[str, Any] = response.body
    return found


def sizes(image_id: UUID) -> int:
    image = Image.objects.get(pk=image_id)
    return image.size + image.untagged_size
