"""Generated content equals pushed content."""

import hashlib
from typing import Any

import pytest
from django.apps import apps
from django.db.models import Exists, ForeignKey, Model, OuterRef, QuerySet

from bench.growth import tables
from bench.growth.tables import GIANT, Table, giant_tag
from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import Blob, BlobLink, Image, Manifest, Tag
from registry_control.catalog.selectors.resolve import manifest_by_tag
from registry_control.catalog.services import reachability
from registry_data.oci.manifest import parse_manifest
from registry_data.storage.base import Key
from registry_data.storage.keys import parse_key
from tests.factories import make_namespace, push_image
from tests.integration.growth.conftest import Grown

pytestmark = pytest.mark.django_db


def test_the_generator_creates_the_requested_size(grown: Grown) -> None:
    giant = Image.objects.get(namespace__name=GIANT[0], name=GIANT[1])
    assert Manifest.objects.filter(image__in=_images()).count() == grown.size.manifests
    assert BlobLink.objects.filter(image__in=_images()).count() >= 3 * grown.size.manifests
    assert Tag.objects.filter(image=giant).count() == grown.size.giant_tags
    assert Manifest.objects.filter(image=giant).count() == grown.size.giant_tags
    pushes = AuditEvent.objects.filter(verb="manifest.push", target_name__startswith="growth-")
    assert pushes.count() == grown.size.manifests


def _images() -> QuerySet[Image]:
    """The generated images."""
    return Image.objects.filter(namespace__name__startswith="growth-")


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.model)
def test_every_reference_points_to_a_row(grown: Grown, table: Table) -> None:
    model: type[Model] = apps.get_model(table.model)
    for field in model._meta.concrete_fields:
        if isinstance(field, ForeignKey):
            assert _dangling(model, field) == 0, field


def _dangling(model: type[Model], field: "ForeignKey[Any, Any]") -> int:
    """Number of rows whose reference points to no row."""
    others = apps.get_model(field.related_model._meta.label)
    referring = model._default_manager.filter(**{f"{field.name}__isnull": False})
    there = others._default_manager.filter(pk=OuterRef(field.attname))
    return referring.filter(~Exists(there)).count()


def test_the_rows_of_a_manifest_agree_with_its_payload(grown: Grown) -> None:
    for manifest in Manifest.objects.filter(image__in=_images()).order_by("-pk")[:20]:
        payload = bytes(manifest.payload)
        assert manifest.digest == f"sha256:{hashlib.sha256(payload).hexdigest()}"
        parsed = parse_manifest(payload, manifest.media_type)
        linked = Blob.objects.filter(links__manifest=manifest).values_list("digest", flat=True)
        children = Manifest.objects.filter(parents__parent=manifest).values_list("digest", flat=True)
        assert set(linked) == set(map(str, parsed.required_blobs))
        assert set(children) == set(map(str, parsed.children))
        assert manifest.subject_digest == (str(parsed.subject.digest) if parsed.subject else "")
        assert manifest.artifact_type == (parsed.artifact_type or "")


def test_the_size_of_an_image_counts_each_blob_once(grown: Grown) -> None:
    for image in (Image.objects.get(name=GIANT[1]), *_images().order_by("pk")[:5]):
        filled = (image.size, image.untagged_size)
        reachability.recount(image.pk)
        image.refresh_from_db()
        assert (image.size, image.untagged_size) == filled


def test_a_storage_key_contains_the_digest_of_its_blob(grown: Grown) -> None:
    for blob in Blob.objects.order_by("-pk")[:20]:
        assert parse_key(Key(blob.storage_key))[0] == blob.digest


def test_the_product_reads_generated_content_and_adds_to_it(grown: Grown) -> None:
    # given one of many tags
    number = grown.size.giant_tags // 2

    # when it is resolved and another image is pushed
    record, found = manifest_by_tag(*GIANT, giant_tag(number))
    pushed = push_image(grown.key, make_namespace(grown.key))

    # then both exist
    assert record.image_id is not None
    assert found is not None
    assert manifest_by_tag(str(pushed.image.namespace), "app", "latest")[1] is not None
