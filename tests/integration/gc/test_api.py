"""The endpoints of garbage collection: who may call them, and what they return."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from registry_control.catalog.models import Blob, BlobLease, BlobLink, BlobReview, Image, Manifest
from registry_control.catalog.services import images, manifests, uploads
from registry_control.common.clock import now
from registry_control.gc.models import GcRun
from registry_control.gc.selectors import explanation
from registry_control.gc.services.requested import advance_runs
from registry_data.storage.base import Key
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import (
    FULL_ACCESS,
    OPERATOR,
    TestKey,
    digest_of,
    make_key,
    make_manifest,
    make_namespace,
    make_project,
    push_blob,
    push_image,
)
from tests.integration.control.api import UNKNOWN_ID, Api, details
from tests.integration.gc.steps import collect, delete_image, expire_leases

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "/registry/v1beta1/regions/fr-par/gc"


def explain(key: TestKey, digest: str) -> dict[str, Any]:
    response = Api(key).get(f"{BASE}/explain", digest=digest)
    assert response.status == 200, response
    body: dict[str, Any] = response.body
    assert set(body) == {"digest", "state", "kept_by", "goes_at", "reason"}
    return body


OTHERS: dict[str, Callable[[TestKey], TestKey]] = {
    "full access in the operating organization": lambda operator: make_key(
        FULL_ACCESS, organization=operator.organization
    ),
    "the permission set in another organization": lambda _: make_key(FULL_ACCESS, OPERATOR),
    "the permission set on one project": lambda operator: make_key(
        OPERATOR, organization=operator.organization, project=make_project(operator.organization)
    ),
}


@pytest.mark.parametrize("who", OTHERS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/queue"),
        ("GET", "/report"),
        ("GET", "/runs"),
        ("POST", "/runs"),
        ("GET", f"/runs/{UNKNOWN_ID}"),
    ],
)
def test_only_operators_see_and_start_work_of_the_installation(
    operator: TestKey, who: str, method: str, path: str
) -> None:
    body = {"dry_run": True} if method == "POST" else None
    assert Api(None).call(method, BASE + path, body).status == 401
    assert Api(OTHERS[who](operator)).call(method, BASE + path, body).status == 403
    expected = 404 if UNKNOWN_ID in path else 200
    assert Api(operator).call(method, BASE + path, body).status == expected


def test_the_permission_set_of_operators_gives_no_right_on_a_namespace(operator: TestKey) -> None:
    only = make_key(OPERATOR, organization=operator.organization)
    namespace = make_namespace(operator)
    assert Api(only).get(f"/namespaces/{namespace.pk}").status == 404
    assert Api(only).get("/namespaces").body["total_count"] == 0


def test_unknown_parameters_and_wrong_values_are_errors(operator: TestKey) -> None:
    api = Api(operator)
    for path in ("/queue", "/report", "/runs", f"/runs/{UNKNOWN_ID}"):
        assert details(api.get(BASE + path, colour="red")) == {"colour": "unknown"}
    assert details(api.get(f"{BASE}/explain")) == {"digest": "required"}
    assert details(api.get(f"{BASE}/explain", digest="sha256:short")) == {"digest": "format"}
    assert details(api.get(f"{BASE}/runs", order_by="size")) == {"order_by": "constraint"}
    assert details(api.post(f"{BASE}/runs", dry_run="yes")) == {"dry_run": "format"}
    assert details(api.post(f"{BASE}/runs", now=True)) == {"now": "unknown"}
    assert api.get(f"{BASE}/runs/nonsense").status == 404


def test_the_queue_counts_what_nothing_refers_to(operator: TestKey, store: FilesystemStore) -> None:
    # given a deleted image whose base layer another image has
    owner = make_key()
    namespace = make_namespace(owner)
    push_image(owner, namespace, "kept", layers=[b"base"])
    doomed = push_image(owner, namespace, "doomed", layers=[b"base", b"own layer"], config=b"own config")
    empty = {"entries": 0, "bytes": 0, "oldest_due_at": None, "stopped_by_breaker": False, "reason": ""}
    assert Api(operator).get(f"{BASE}/queue").body == empty
    before = now()

    # when the worker has removed it, then the queue has its own two blobs
    delete_image(doomed, store)
    found = Api(operator).get(f"{BASE}/queue").body
    assert (found["entries"], found["bytes"]) == (2, len(b"own layer") + len(b"own config"))
    assert found["oldest_due_at"] > before.isoformat()


def test_runs_are_rows_that_workers_advance(operator: TestKey, store: FilesystemStore) -> None:
    # given two unreferenced blobs that are due
    owner = make_key()
    doomed = push_image(owner, make_namespace(owner), layers=[b"own layer"], store=store)
    delete_image(doomed, store)
    BlobReview.objects.update(unreferenced_since=now().replace(year=2020))

    # when a dry run is requested and workers advance it
    api = Api(operator)
    run = api.post(f"{BASE}/runs", dry_run=True).body
    assert (run["status"], run["dry_run"], run["blobs"], run["finished_at"]) == ("running", True, 0, None)
    while advance_runs(store=store, limit=1):
        pass

    # then it has counted them and removed nothing
    done = api.get(f"{BASE}/runs/{run['id']}").body
    assert (done["status"], done["blobs"], done["bytes"]) == ("succeeded", 2, doomed.size)
    assert done["finished_at"] >= done["started_at"]
    assert Blob.objects.count() == 2

    # and a run removes them
    run = api.post(f"{BASE}/runs").body
    while advance_runs(store=store, limit=1):
        pass
    done = api.get(f"{BASE}/runs/{run['id']}").body
    assert (done["status"], done["dry_run"], done["blobs"], done["errors"]) == ("succeeded", False, 2, [])
    assert not Blob.objects.exists()
    listed = api.get(f"{BASE}/runs").body
    assert listed["total_count"] == len(listed["runs"])
    assert listed["runs"][0]["id"] == run["id"]
    assert set(listed["runs"][0]) >= {
        *("id", "status", "dry_run", "started_at", "finished_at", "blobs", "bytes", "manifests", "errors")
    }


def test_continuous_work_is_one_run_an_hour(operator: TestKey, store: FilesystemStore) -> None:
    owner = make_key()
    namespace = make_namespace(owner)
    for number in range(3):
        pushed = push_image(
            owner, namespace, f"image-{number}", layers=[bytes([number])], config=b"c%d" % number
        )
        delete_image(pushed, store)
        assert collect(store).removed == 2
    hours = GcRun.objects.filter(kind="continuous")
    assert sum(run.blobs for run in hours) == 6
    assert sum(run.manifests for run in hours) == 3
    assert hours.count() <= 2  # the test may run over the end of an hour


def test_explain_names_the_tags_and_leases_that_keep_content(store: FilesystemStore) -> None:
    owner = make_key()
    namespace = make_namespace(owner)
    pushed = push_image(owner, namespace, tags=("a", "b"), layers=[b"layer"])
    image = f"{namespace.name}/app"

    # of a blob and of its manifest
    layer = digest_of(b"layer")
    for digest in (layer, pushed.digest):
        found = explain(owner, digest)
        assert (found["state"], found["goes_at"]) == ("kept", None)
        assert set(found["kept_by"]) >= {f"tag a of image {image}", f"tag b of image {image}"}

    # of a blob that only a lease keeps
    uploaded = push_blob(owner, pushed.image_id, b"uploaded")
    found = explain(owner, uploaded)
    lease = BlobLease.objects.get(blob__digest=uploaded)
    assert found["kept_by"] == [f"lease of image {image} until {lease.expires_at.isoformat()}"]
    assert found["state"] == "kept"
    assert found["goes_at"] is not None

    # of content that nothing keeps any more
    expire_leases()
    found = explain(owner, uploaded)
    assert (found["state"], found["kept_by"]) == ("waiting", [])
    assert "lease expired" in found["reason"]
    collect(store)
    assert explain(owner, uploaded)["state"] == "unknown"


def test_explain_finds_the_tag_of_an_index_and_untagged_manifests() -> None:
    owner = make_key()
    namespace = make_namespace(owner)
    child = push_image(owner, namespace, tags=(), layers=[b"layer"])
    image = f"{namespace.name}/app"
    assert explain(owner, child.digest)["kept_by"] == [f"untagged manifest {child.digest} of image {image}"]
    index = make_manifest(children=[child.digest])
    manifests.put(actor=owner.actor, image_id=child.image_id, new=index, tag_names=["multi"])
    assert explain(owner, child.digest)["kept_by"] == [f"tag multi of image {image}"]
    assert f"tag multi of image {image}" in explain(owner, digest_of(b"layer"))["kept_by"]


def test_explain_says_that_an_image_is_being_deleted_until_the_worker_has_done_that(
    operator: TestKey, store: FilesystemStore
) -> None:
    # given an image whose deletion has begun, and a layer that another image has as well
    owner = make_key()
    namespace = make_namespace(owner)
    push_image(owner, namespace, "kept", layers=[b"shared"], config=b"kept config")
    pushed = push_image(owner, namespace, layers=[b"shared", b"own layer"], config=b"own", store=store)
    images.delete(principal=owner.principal, image_id=pushed.image_id)

    # then its manifest and its own layer wait, and the shared layer is kept by the other image alone
    for viewer in (owner, operator):
        for digest in (pushed.digest, digest_of(b"own layer")):
            found = explain(viewer, digest)
            if viewer is operator and digest == pushed.digest:
                assert found["state"] == "unknown"
                continue
            assert (found["state"], found["kept_by"], found["goes_at"]) == ("waiting", [], None)
            assert "is deleting the images" in found["reason"]
    found = explain(owner, digest_of(b"shared"))
    assert found["state"] == "kept"
    assert not [each for each in found["kept_by"] if f"{namespace.name}/app" in each]


def test_explain_finds_the_live_image_among_any_number_that_are_deleted(
    operator: TestKey, store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given more images with a layer that are being deleted, or in the recycle bin, than explain looks at
    monkeypatch.setattr(explanation, "_MOST_IMAGES", 1)
    owner, layer = make_key(), digest_of(b"shared")
    namespace = make_namespace(owner)
    gone = [push_image(owner, namespace, f"gone-{number}", layers=[b"shared"]) for number in range(5)]
    live = push_image(owner, namespace, "live", layers=[b"shared"])
    assert live.digest == gone[0].digest
    expire_leases()
    for pushed in gone:
        images.delete(principal=owner.principal, image_id=pushed.image_id)

    # then the live one keeps the layer and the manifest
    for viewer in (owner, operator):
        for digest in (layer, live.digest):
            assert explain(viewer, digest)["state"] == "kept"
    assert explain(owner, live.digest)["kept_by"] == [f"tag latest of image {namespace.name}/live"]

    # and without it, they wait for the worker
    images.delete(principal=owner.principal, image_id=live.image_id)
    for digest in (layer, live.digest):
        assert explain(owner, digest)["state"] == "waiting"


def test_explain_tells_an_operator_that_others_have_a_manifest(operator: TestKey) -> None:
    owner = make_key()
    pushed = push_image(owner, make_namespace(owner))
    found = explain(operator, pushed.digest)
    assert (found["state"], found["kept_by"]) == ("kept", ["images of others"])
    assert explain(make_key(), pushed.digest)["state"] == "unknown"


def test_explain_shows_only_what_the_caller_may_see(operator: TestKey, store: FilesystemStore) -> None:
    # given a layer that two tenants have
    owner, stranger, nobody = make_key(), make_key(), make_key()
    mine = push_image(owner, make_namespace(owner), layers=[b"common"])
    others = make_namespace(stranger)
    push_image(stranger, others, layers=[b"common"])
    layer = digest_of(b"common")

    # then each sees its own names, whoever has nothing sees nothing, and the operator no names
    found = explain(owner, layer)
    assert found["kept_by"][-1] == "images of others"
    assert others.name not in str(found)
    assert explain(nobody, layer) | {"digest": ""} == explain(nobody, f"sha256:{uuid4().hex * 2}") | {
        "digest": ""
    }
    assert explain(operator, layer)["kept_by"] == ["images of others"]

    # and the owner whose reference ended still sees that others keep it
    delete_image(mine, store)
    assert explain(owner, layer)["kept_by"] == ["images of others"]
    assert explain(owner, layer)["state"] == "kept"


def test_invariant_9_explain_hides_by_content_and_by_work_what_others_have(store: FilesystemStore) -> None:
    # given content of a tenant: listed, leased, and failing to be deleted
    stranger, nobody = make_key(), make_key()
    pushed = push_image(stranger, make_namespace(stranger), layers=[b"listed"], store=store)
    leased = push_blob(stranger, pushed.image_id, b"leased", store=store)
    failing = push_blob(stranger, pushed.image_id, b"failing", store=store)
    Blob.objects.filter(digest=failing).update(state="deleting")
    BlobReview.objects.create(
        blob=Blob.objects.get(digest=failing), cause="", unreferenced_since=now(), retry_at=now()
    )

    # when another tenant asks for each and for content that does not exist
    def asked(digest: str) -> tuple[dict[str, Any], int]:
        with CaptureQueriesContext(connection) as captured:
            body = explain(nobody, digest)
        return body | {"digest": ""}, len(captured)

    asked(digest_of(b"absent"))
    absent = asked(digest_of(b"absent"))
    for digest in (digest_of(b"listed"), leased, failing):
        assert asked(digest) == absent

    # and when its own image has the content too, then it does not learn about the leases of others
    mine = push_image(nobody, make_namespace(nobody), layers=[b"leased"], store=store)
    delete_image(mine, store)
    found = explain(nobody, leased)
    assert (found["state"], found["kept_by"], found["goes_at"]) == ("kept", ["images of others"], None)
    lease = BlobLease.objects.get(blob__digest=leased)
    assert str(lease.expires_at.year) not in found["reason"]


def test_explain_finds_the_image_of_the_caller_among_any_number_of_others() -> None:
    stranger, owner = make_key(), make_key()
    others, mine = make_namespace(stranger), make_namespace(owner)
    push_image(stranger, others, layers=[b"common"])
    ids = [UUID(int=number) for number in range(1, 251)]
    Image.objects.bulk_create(
        Image(id=pk, namespace=others, organization_id=stranger.organization.pk, name=f"image-{pk}")
        for pk in ids
    )
    manifests_of = {pk: Manifest(image_id=pk, digest="sha256:x", payload=b"", size=0) for pk in ids}
    Manifest.objects.bulk_create(manifests_of.values())
    blob = Blob.objects.get(digest=digest_of(b"common"))
    BlobLink.objects.bulk_create(
        BlobLink(image_id=pk, manifest=manifest, blob=blob) for pk, manifest in manifests_of.items()
    )

    push_image(owner, mine, "own", layers=[b"common"])

    found = explain(owner, digest_of(b"common"))
    assert found["kept_by"][0] == f"tag latest of image {mine.name}/own"
    assert found["kept_by"][-1] == "images of others"


def test_only_operators_read_what_the_storage_said(operator: TestKey, store: FilesystemStore) -> None:
    owner = make_key()
    pushed = push_image(owner, make_namespace(owner), layers=[b"layer"], store=store)
    delete_image(pushed, store)
    blob = Blob.objects.get(digest=digest_of(b"layer"))
    path = store.path_of(Key(blob.storage_key))
    path.unlink()
    path.mkdir()
    assert len(collect(store).errors) == 1

    reason = explain(owner, blob.digest)["reason"]
    assert "failed attempts to delete the content: 1" in reason
    assert str(path) not in reason
    assert str(path) in explain(operator, blob.digest)["reason"]


def test_a_run_during_which_the_storage_fails_ends_as_failed(
    operator: TestKey, store: FilesystemStore, tmp_path: Path
) -> None:
    # given a deleted image with an upload, and a disk that is not mounted
    owner = make_key()
    pushed = push_image(owner, make_namespace(owner), store=store)
    uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    images.delete(principal=owner.principal, image_id=pushed.image_id)
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")

    run = Api(operator).post(f"{BASE}/runs").body
    while advance_runs(store=store, limit=10):
        pass

    done = Api(operator).get(f"{BASE}/runs/{run['id']}").body
    assert done["status"] == "failed"
    assert len(done["errors"]) == 1
    assert done["finished_at"] is not None
