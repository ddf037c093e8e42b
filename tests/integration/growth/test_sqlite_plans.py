"""SQLite plans without statistics, by the text of a statement and its indexes alone."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models import QuerySet

from bench.growth.tables import GIANT
from registry_control.catalog.models import Blob, Image
from registry_control.catalog.selectors import listing
from registry_control.catalog.selectors.holders import images_with, names_of_images_with
from registry_control.rest.pagination import page_of
from tests.integration.growth.conftest import Grown
from tests.integration.growth.watched import Statement, recording

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.only_on("sqlite"),  # PostgreSQL plans with statistics
]

_PAGE: Final = {"page": 10, "page_size": 20}


def _steps(statements: list[Statement]) -> Iterator[str]:
    with connection.cursor() as cursor:
        for sql, parameters in statements:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
            yield from (detail for _, _, _, detail in cursor.fetchall())


def _listed(grown: Grown, kind: str) -> QuerySet[Any]:
    if kind == "tags":
        giant = Image.objects.get(namespace__name=GIANT[0], name=GIANT[1])
        return listing.tags_of(giant, name=None)[0]
    return listing.images_visible_to(grown.key.principal, listing.ImageFilter())


@pytest.mark.parametrize(
    ("kind", "order_by"), [("images", "created_at_asc"), ("tags", "created_at_asc"), ("tags", "name_desc")]
)
def test_a_list_of_the_api_reads_only_the_rows_of_one_page(grown: Grown, kind: str, order_by: str) -> None:
    # given a long list
    rows = _listed(grown, kind)

    # when one page is read
    statements: list[Statement] = []
    with recording(statements):
        shown = rows.model._default_manager.all()
        page, _ = page_of(rows, query={**_PAGE, "order_by": order_by}, shown=shown)

    # then rows are read by id, and everything else comes from covering indexes
    assert len(page) == _PAGE["page_size"]
    of_rows = [step for step in _steps(statements) if f"catalog_{kind[:-1]}" in step or "0 USING" in step]
    assert of_rows
    assert [step for step in of_rows if "COVERING INDEX" not in step and "(id=?)" not in step] == []


def test_counting_images_reads_no_image_rows(grown: Grown) -> None:
    statements: list[Statement] = []
    with recording(statements):
        assert listing.count_images(grown.key.principal, listing.ImageFilter()) > _PAGE["page_size"]
    of_images = [step for step in _steps(statements) if "catalog_image" in step]
    assert of_images
    assert [step for step in of_images if "images_never_pushed" not in step] == []


def test_a_mount_without_source_looks_up_images_by_blob(grown: Grown) -> None:
    # given a blob that most images have
    blob = Blob.objects.get(digest=f"sha256:{hashlib.sha256(b'{}').hexdigest()}")

    # when images with it are looked up
    statements: list[Statement] = []
    with recording(statements):
        found = images_with(blob.pk, organization_id=grown.key.principal.organization_id or uuid4())

    # then each is read by id, without reading whole namespaces
    assert found
    assert [step for step in _steps(statements) if "(namespace_id=?)" in step] == []


def test_the_images_of_lost_blobs_are_looked_up_by_blob(grown: Grown) -> None:
    # given a blob that most images have, and others
    ids = list(Blob.objects.order_by("pk").values_list("pk", flat=True)[:20])

    # when their images are looked up, then no table is scanned
    statements: list[Statement] = []
    with recording(statements):
        assert any(names_of_images_with(ids).values())
    steps = [step for step in _steps(statements) if "USING" in step]
    assert [step for step in steps if step.startswith("SCAN")] == []
    assert {step.split()[1] for step in steps} >= {"b", "k", "i", "n", "catalog_bloblease"}
