"""No route and no task scans a large table: the planner explains each of their statements."""

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection, transaction

from bench.growth import tables
from bench.growth.plans import is_explained, scans
from bench.growth.tables import GIANT, giant_tag
from registry_control.access import services as access
from registry_control.access.policy import Principal
from registry_control.audit.services import SYSTEM
from registry_control.catalog.models import Blob, BlobLease, BlobReview, Image, Manifest, Tag, UploadSession
from registry_control.catalog.selectors import content
from registry_control.catalog.services import deletion, uploads
from registry_control.common.clock import now
from registry_control.common.models import Status
from registry_control.gc.policy import Rules
from registry_control.gc.retention import parse
from registry_control.gc.selectors import explanation, planner
from registry_control.gc.services import enforcement, figures, inventory, retention
from registry_control.gc.services.collector import collect_batch
from registry_control.integrity.models import BlobCheck, Job
from registry_control.integrity.selectors import comparison
from registry_control.integrity.services import checks, reconcile, scrub, unknown
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import BlobStore, Kind, StoredObject
from registry_data.storage.filesystem import FilesystemStore
from registry_data.storage.keys import blob_key
from tests.factories import make_key
from tests.integration.growth.conftest import SIZE, Grown
from tests.integration.growth.routes import ROUTES
from tests.integration.growth.watched import Statement, Watched, recording

pytestmark = pytest.mark.django_db

_BIG: Final = 1000  # rows; a scan of fewer is as fast as an index
_QUEUED: Final = 1500  # of each kind


@pytest.fixture(scope="package")
def big(grown: Grown) -> frozenset[str]:
    """The tables that must not be scanned."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")  # what the requests of the other tests added since the fill counts, too
    models = [apps.get_model(table.model) for table in tables.TABLES]
    return frozenset(model._meta.db_table for model in models if model._default_manager.count() > _BIG)


def _scans(statements: Collection[Statement], big: Collection[str]) -> list[str]:
    return [
        f"{scan}: {sql}"
        for sql, parameters in statements
        if is_explained(sql)
        for scan in scans(sql, parameters, big=big)
    ]


def test_the_important_tables_are_large(big: frozenset[str]) -> None:
    assert big >= {
        f"catalog_{name}" for name in ("image", "manifest", "tag", "blob", "bloblink", "bloblease")
    }


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_scans_no_large_table(
    statements_when_grown: Mapping[str, Watched], big: frozenset[str], route: str
) -> None:
    assert _scans(statements_when_grown[route].statements, big) == []


@pytest.mark.parametrize("number", [0, SIZE.giant_tags // 2, SIZE.giant_tags - 50])
def test_a_page_of_tags_does_not_scan_all_tags(grown: Grown, big: frozenset[str], number: int) -> None:
    # given a repository with many tags
    giant = Image.objects.get(namespace__name=GIANT[0], name=GIANT[1])

    # when one page is read
    statements: list[Statement] = []
    with recording(statements):
        names = content.tag_names(giant.pk, after=giant_tag(number), limit=101)

    # then only that page is read
    assert names[0] == giant_tag(number + 1)
    assert _scans(statements, big) == []


def _delete_much(giant: Image) -> None:
    Image.objects.filter(pk=giant.pk).update(status=Status.DELETING)
    other = Tag.objects.exclude(image=giant)[0]
    Tag.objects.filter(pk=other.pk).update(status=Status.DELETING)
    Namespace.objects.filter(pk=other.image.namespace_id).update(status=Status.DELETING)


def _let_expire(giant: Image) -> None:
    past = now() - timedelta(minutes=1)
    some = BlobLease.objects.order_by("pk").values("pk")[:300]
    BlobLease.objects.filter(pk__in=list(some.values_list("pk", flat=True))).update(expires_at=past)
    session = UploadSession.objects.order_by("pk")[0]
    UploadSession.objects.filter(pk=session.pk).update(expires_at=past)
    long_ago = now() - settings.UPLOAD_LIFE - timedelta(hours=1)
    place = {"namespace": giant.namespace, "organization_id": giant.organization_id}
    Image.objects.create(**place, name="never-pushed", created_at=long_ago)


def _queue_much(giant: Image) -> None:
    """Blobs of which some are referenced, some leased and some forgotten, in the review queue for a week."""
    week_ago = now() - timedelta(days=7)
    ids = list(Blob.objects.order_by("pk").values_list("pk", flat=True)[:_QUEUED])
    BlobReview.objects.bulk_create(
        [BlobReview(blob_id=pk, cause="manifest deleted", unreferenced_since=week_ago) for pk in ids],
        ignore_conflicts=True,
    )
    new = [
        Blob(
            digest=f"sha256:{number:064x}",
            size=1,
            storage_key=blob_key("sha256", f"{number:064x}", "ab" * 16),
        )
        for number in range(_QUEUED)
    ]
    # Most rows belong to one organization, as after the deletion of a large namespace.
    BlobReview.objects.bulk_create(
        BlobReview(
            blob=blob,
            cause="manifest deleted",
            unreferenced_since=week_ago,
            organization_id=giant.organization_id if number % 100 else uuid4(),
        )
        for number, blob in enumerate(Blob.objects.bulk_create(new))
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE catalog_blobreview")


def _fail_much(giant: Image) -> None:
    """The same, and the storage refuses to delete a part of the blobs."""
    _queue_much(giant)
    ids = list(BlobReview.objects.order_by("-pk").values_list("pk", flat=True)[: _QUEUED // 2])
    Blob.objects.filter(pk__in=ids).update(state=Blob.State.DELETING)
    BlobReview.objects.filter(pk__in=ids).update(retry_at=now() - timedelta(minutes=1), attempts=3, size=1)


def _nothing(giant: Image) -> None:
    """The usual case: there is nothing to do."""


def _retain(giant: Image) -> None:
    """Rules for the namespace with the largest image, of which each tag needs a decision."""
    policy = {"rules": [{"images": "*", "tags": "*", "keep_newest": 10**6}], "untagged_days": 1}
    retention.store(giant.namespace, parse(policy), actor=SYSTEM)
    untagged = Manifest.objects.filter(image=giant).order_by("pk").values("pk")[:20]
    Manifest.objects.filter(pk__in=list(untagged.values_list("pk", flat=True))).update(is_reachable=False)


def _rules() -> Rules:
    return Rules(now(), settings.GC_GRACE)


def _explain(*, to: Principal | None) -> None:
    """Explain some blobs and manifests to a tenant or, with None, to the administration."""
    viewer = explanation.Viewer(to)
    for model in (Blob, Manifest):
        for digest in model.objects.order_by("pk").values_list("digest", flat=True)[:9]:
            explanation.explain(digest, viewer=viewer, rules=_rules())


def _scrub(store: BlobStore) -> None:
    Job.objects.create(name=Job.Name.SCRUB, counted_at=now(), total_blobs=1, total_bytes=1)
    scrub.work(store, period=timedelta(minutes=1))
    BlobCheck.objects.update(due_at=now())
    checks.work(store)


def _compare(store: BlobStore) -> None:
    reconcile.compare(store, reconcile.ROWS, "", limit=500, accept_losses=True)
    # Few: of a table with 1,000 rows PostgreSQL reads all rather than look up 100 ids.
    names = [f"{number:032x}" for number in range(20)]
    comparison.unknown([StoredObject(kind, name, name, 1) for kind in Kind for name in names])
    unknown.remove_due(store, grace=timedelta(days=1))


TASKS: Final[Mapping[str, Callable[[BlobStore], object]]] = {
    "finish deletions": lambda store: deletion.run_batch(store=store, limit=200),
    "expire uploads": lambda store: uploads.expire(store=store, limit=200),
    "remove images never pushed": lambda store: deletion.remove_never_pushed(limit=200),
    "expire leases": lambda store: deletion.remove_expired_leases(limit=200),
    "collect": lambda store: collect_batch(store=store, rules=_rules(), limit=200),
    "plan": lambda store: [*planner.pages(_rules()), *planner.waiting(_rules()), planner.summary(_rules())],
    "count the queue": lambda store: figures.count_new(_rules(), limit=500),
    "take inventory": lambda store: inventory.advance(),
    "dry run": lambda store: [*planner.pages(_rules(), only_due=True)],
    "enforce retention": lambda store: enforcement.enforce(seconds=30),
    "explain": lambda store: _explain(to=make_key().principal),
    "explain to the administration": lambda store: _explain(to=None),
    "scrub": _scrub,
    "reconcile": _compare,
    "rotate signing keys": lambda store: access.rotate_signing_keys(),
}


@pytest.mark.parametrize("prepare", [_nothing, _delete_much, _let_expire, _queue_much, _fail_much, _retain])
def test_no_task_scans_a_large_table(
    grown: Grown, big: frozenset[str], tmp_path: Path, prepare: Callable[[Image], None]
) -> None:
    # given work for some tasks, or none
    prepare(Image.objects.select_related("namespace").get(namespace__name=GIANT[0], name=GIANT[1]))
    store = FilesystemStore(tmp_path)
    store.check()

    # when each task runs, all on the same rows, then it used indexes only
    found = []
    for name, task in TASKS.items():
        with transaction.atomic():
            found += [f"{name}: {scan}" for scan in _scans_of(task, store, big)]
            transaction.set_rollback(True)
    assert found == []


def _scans_of(task: Callable[[BlobStore], object], store: BlobStore, big: frozenset[str]) -> list[str]:
    statements: list[Statement] = []
    with recording(statements):
        task(store)
    assert statements

    scanned = _scans(statements, big)
    # The review queue is not scanned either, apart from lookups of hundreds of ids among these few thousand.
    if BlobReview.objects.count() > _BIG:
        searches = [each for each in statements if "id IN (%s" not in each.sql]
        # SQLite says SCAN also where it reads the first rows of a partial index, up to a LIMIT.
        in_queue = _scans(searches, {"catalog_blobreview"})
        scanned += [scan for scan in in_queue if "INDEX blobs_" not in scan]
    return scanned
