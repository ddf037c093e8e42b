"""The figures of the queue are read in constant time and equal its rows."""

import pytest
from django.db import connection
from django.db.models import Count, Sum
from django.test.utils import CaptureQueriesContext

from registry_control.catalog.models import BlobReview
from registry_control.gc.models import QueueFigures
from registry_control.gc.selectors import planner
from registry_control.gc.services.figures import count_new
from registry_control.namespaces.models import Namespace
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, push_image
from tests.integration.gc.steps import LATER, collect, delete_image, expire_leases, queued, rules

pytestmark = pytest.mark.django_db(transaction=True)


def _figures() -> tuple[int, int]:
    found = QueueFigures.objects.first()
    return (found.entries, found.bytes) if found else (0, 0)


def _rows() -> tuple[int, int]:
    """What the figures have to be: the rows that have been counted."""
    counted = BlobReview.objects.filter(size__isnull=False).aggregate(rows=Count("pk"), bytes=Sum("size"))
    return counted["rows"], counted["bytes"] or 0


def test_new_rows_are_counted_and_those_of_referenced_blobs_are_dropped(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    # given an image whose deletion queues a layer that another image has
    kept = push_image(owner, namespace, "kept", layers=[b"shared"], config=b"kept", store=store)
    gone = push_image(owner, namespace, layers=[b"shared", b"own layer"], config=b"own", store=store)
    expire_leases()
    delete_image(gone, store)
    unreferenced = set(gone.blobs) - set(kept.blobs)
    size = len(b"own layer") + len(b"own")

    # when nothing has been counted yet, then the summary has the new rows
    assert _figures() == (0, 0)
    assert planner.summary(rules())[:2] == (2, size)

    # when the worker counts, a few rows at a time
    while count_new(rules(), limit=2) == 2:
        assert _figures() == _rows()

    # then the row of the shared layer is gone, and the summary is the same
    assert queued() == unreferenced
    assert _figures() == _rows() == (2, size)
    assert planner.summary(rules())[:2] == (2, size)

    # and a removal subtracts what it removes
    assert collect(store).removed == 2
    assert _figures() == _rows() == (0, 0)


def test_rows_that_were_counted_and_then_referenced_again_are_subtracted_at_their_review(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    count_new(rules(), limit=100)
    assert _figures()[0] == 2
    push_image(owner, namespace, "again", layers=[b"layer"], store=store)
    batch = collect(store, LATER)
    assert (batch.removed, batch.kept) == (0, 2)
    assert _figures() == _rows() == (0, 0)


def test_blobs_that_are_removed_before_they_were_counted_change_no_figure(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    delete_image(push_image(owner, namespace, layers=[b"layer"], store=store), store)
    assert collect(store).removed == 2
    assert _figures() == (0, 0)
    assert not count_new(rules(), limit=100)


def test_the_summary_needs_as_many_statements_for_one_row_as_for_many(
    owner: TestKey, namespace: Namespace, store: FilesystemStore
) -> None:
    def statements(layers: int) -> int:
        pushed = push_image(owner, namespace, f"of-{layers}", layers=[b"%d" % each for each in range(layers)])
        delete_image(pushed, store)
        count_new(rules(), limit=100)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            planner.summary(rules())
        return len(captured)

    assert statements(1) == statements(40)
