"""The recycle bin: what deletions leave in it, restoring, purging and expiry."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings

from registry_control.audit.models import AuditEvent
from registry_control.catalog.errors import ImageNotFound
from registry_control.catalog.models import Blob, BlobLease, BlobLink, Image, UploadSession
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.recycled import recycled_blobs
from registry_control.catalog.services import blobs, images, manifests, tags, uploads
from registry_control.common.clock import now
from registry_control.common.store import blob_store
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.recycling.services import emptying
from registry_data.oci.errors import ProtocolError
from registry_data.oci.reference import Repository
from registry_data.registry import upload_sessions
from registry_data.registry.authorization import Credentials, require_push
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import (
    READ_ONLY,
    TestKey,
    digest_of,
    make_key,
    make_manifest,
    make_namespace,
    push_blob,
    push_image,
)
from tests.integration.control.api import UNKNOWN_ID, Api
from tests.integration.gc.recycling import BIN, V1BETA1, entry_id, expire, finish, restore
from tests.integration.gc.steps import collect, queued

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("recycle_bin")]


def test_a_deleted_image_is_gone_and_has_an_entry_until_it_is_restored_as_it_was(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace, "team/app", tags=("v1", "v2"))
    before = api.get(f"/images/{pushed.image_id}").body
    deleted = api.delete(f"/images/{pushed.image_id}")
    assert (deleted.status, deleted.body["status"]) == (200, "deleting")
    assert deleted.body["updated_at"] > before["updated_at"]

    assert api.get(f"/images/{pushed.image_id}").status == 404
    assert api.get(f"/tags/{pushed.tag('v1').pk}").status == 404
    assert api.get("/images").body == {"images": [], "total_count": 0}
    assert api.get(f"/namespaces/{namespace.pk}").body["size"] == 0
    assert resolve.repository(namespace.name, "team/app").image_id is None
    (entry,) = api.get(BIN).body["entries"]
    assert {name: entry[name] for name in ("kind", "name", "namespace_id", "deleted_by", "size")} == {
        "kind": "image",
        "name": f"{namespace.name}/team/app",
        "namespace_id": str(namespace.pk),
        "deleted_by": owner.actor.name,
        "size": pushed.size,
    }

    usage = {"organization_id": str(owner.organization.pk), "untagged_size": 0}
    found = {"size": 0, "recycled_size": pushed.size}
    assert api.get(f"{V1BETA1}/usage").body == {**usage, **found}
    restored = api.call("POST", f"{BIN}/{entry['id']}/restore")  # without a body
    found = {"size": pushed.size, "recycled_size": 0}
    assert api.get(f"{V1BETA1}/usage").body == {**usage, **found}
    assert (restored.status, restored.body) == (200, before)
    assert api.get(f"/images/{pushed.image_id}").body == before
    assert api.get(f"/tags/{pushed.tag('v1').pk}").body["name"] == "v1"
    assert resolve.manifest_by_tag(namespace.name, "team/app", "v2")[1] is not None
    assert api.get(BIN).body == {"entries": [], "total_count": 0}
    verbs = AuditEvent.objects.filter(target_id=str(pushed.image_id)).order_by("pk")
    assert list(verbs.values_list("verb", flat=True))[-2:] == ["image.delete", "image.restore"]


def test_a_deleted_namespace_comes_back_with_its_images(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner, is_public=True)
    pushed = push_image(owner, namespace)
    before = api.get(f"/namespaces/{namespace.pk}").body
    deleted = api.delete(f"/namespaces/{namespace.pk}").body
    assert deleted["status"] == "deleting"
    assert deleted["updated_at"] > before["updated_at"]

    assert api.get(f"/namespaces/{namespace.pk}").status == 404
    assert api.get(f"/images/{pushed.image_id}").status == 404
    for path in ("/namespaces", "/images"):
        assert api.get(path).body["total_count"] == 0
        assert api.get(path, organization_id=str(owner.organization.pk)).body["total_count"] == 0
    assert api.get("/images", name="app").body["total_count"] == 0
    assert resolve.repository(namespace.name, "app") is resolve.UNKNOWN
    (entry,) = api.get(BIN, namespace_id=str(namespace.pk)).body["entries"]
    assert (entry["kind"], entry["name"], entry["size"]) == ("namespace", namespace.name, pushed.size)

    restored = api.post(f"{BIN}/{entry['id']}/restore")
    assert (restored.status, restored.body) == (200, before)
    assert [image["id"] for image in api.get("/images").body["images"]] == [str(pushed.image_id)]
    assert resolve.manifest_by_tag(namespace.name, "app", "latest")[1] is not None


def test_the_response_to_the_deletion_of_a_tag_has_the_time_of_the_deletion(owner: TestKey) -> None:
    api, pushed = Api(owner), push_image(owner, make_namespace(owner))
    path = f"/tags/{pushed.tag('latest').pk}"
    before = api.get(path).body
    deleted = api.delete(path).body
    assert deleted["status"] == "deleting"
    assert deleted["updated_at"] > before["updated_at"]
    assert restore(owner).status == 200
    assert api.get(path).body == before


def test_a_taken_name_is_a_conflict_with_a_way_out(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    old = push_image(owner, namespace, "app")
    api.delete(f"/images/{old.image_id}")
    new = push_image(owner, namespace, "app", layers=[b"another"])
    refused = api.post(f"{BIN}/{entry_id(owner)}/restore")
    assert (refused.status, refused.body["type"]) == (409, "already_exists")
    assert "under another name" in refused.body["help_message"]
    assert restore(owner, "UPPER").status == 400
    assert restore(owner, f"{namespace.name}/old/app").status == 200
    assert api.get(f"/images/{old.image_id}").body["name"] == "old/app"
    assert api.get(f"/images/{new.image_id}").body["name"] == "app"

    api.delete(f"/namespaces/{namespace.pk}")
    taken = make_namespace(owner, namespace.name)
    assert restore(owner).status == 409
    assert restore(owner, "x").status == 400
    assert restore(owner, f"{namespace.name}-2").status == 200
    assert api.get(f"/namespaces/{namespace.pk}").body["name"] == f"{namespace.name}-2"
    assert api.get(f"/namespaces/{taken.pk}").body["name"] == namespace.name


def test_an_upload_without_a_push_does_not_take_the_name(owner: TestKey, store: FilesystemStore) -> None:
    # given a deleted image, and an upload to its name, after which no list shows an image
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace)
    tags.untag(actor=owner.actor, image_id=pushed.image_id, name="latest")
    before = api.get(f"/images/{pushed.image_id}").body
    of_tag = entry_id(owner)
    api.delete(f"/images/{pushed.image_id}")
    of_image = RecycleBinEntry.objects.get(kind="image").pk
    repository, credentials = Repository(namespace.name, "app"), Credentials(secret=owner.secret)
    begin = partial(upload_sessions.start, algorithm="sha256", store=store)
    session = begin(require_push(credentials, repository))
    hidden = UploadSession.objects.get(pk=session).image_id
    assert api.get("/images").body["total_count"] == 0

    # when what was deleted is restored, then it is there again as it was
    restored = api.post(f"{BIN}/{of_image}/restore")
    assert (restored.status, restored.body) == (200, before)
    assert api.post(f"{BIN}/{of_tag}/restore").status == 200

    # and the upload is over; the next one goes to the restored image
    with pytest.raises(ProtocolError) as refused:
        upload_sessions.find(credentials, repository, session, purpose=upload_sessions.TO_WRITE)
    assert refused.value.status == 404
    again = UploadSession.objects.get(pk=begin(require_push(credentials, repository)))
    assert again.image_id == pushed.image_id
    finish(store)
    assert not Image.objects.filter(pk=hidden).exists()
    assert not UploadSession.objects.filter(pk=session).exists()
    namespace.refresh_from_db()
    assert namespace.image_rows == 1


def test_a_name_that_an_administrator_has_locked_stays_as_it_is(owner: TestKey) -> None:
    namespace = make_namespace(owner)
    Api(owner).delete(f"/images/{push_image(owner, namespace).image_id}")
    begun = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    Image.objects.filter(pk=begun).update(status="locked")
    assert restore(owner).status == 423
    assert Image.objects.get(pk=begun).status == "locked"
    assert restore(owner, "other").status == 200


def test_an_image_of_a_namespace_in_the_bin_waits_for_it(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace)
    api.delete(f"/images/{pushed.image_id}")
    api.delete(f"/namespaces/{namespace.pk}")
    of_image, of_namespace = api.get(BIN, order_by="deleted_at_asc").body["entries"]
    refused = api.post(f"{BIN}/{of_image['id']}/restore")
    assert (refused.status, refused.body["type"]) == (409, "precondition_failed")
    assert "restore the namespace first" in refused.body["message"]
    assert api.post(f"{BIN}/{of_namespace['id']}/restore").status == 200
    assert api.post(f"{BIN}/{of_image['id']}/restore").status == 200


def test_a_locked_namespace_takes_nothing_back(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace)
    api.delete(f"/images/{pushed.image_id}")
    Namespace.objects.filter(pk=namespace.pk).update(status="locked")
    assert restore(owner).status == 423
    assert Api(owner).delete(f"{BIN}/{entry_id(owner)}").status == 200


@pytest.mark.parametrize("what", ["image", "namespace"])
def test_what_was_promised_ends_with_the_deletion(owner: TestKey, store: FilesystemStore, what: str) -> None:
    # given an image with promises and uploads
    namespace = make_namespace(owner)
    pushed = push_image(owner, namespace)
    leased = {push_blob(owner, pushed.image_id, content, store=store) for content in (b"never linked", b"b")}
    for _ in range(2):
        uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")

    # when it is deleted, then these end, in several batches
    api = Api(owner)
    api.delete(f"/images/{pushed.image_id}" if what == "image" else f"/namespaces/{namespace.pk}")
    while emptying.settle(entries=1, limit=1):
        pass
    assert not BlobLease.objects.exists()
    assert not UploadSession.objects.filter(is_open=True).exists()
    assert leased <= queued()
    found = BlobLink.objects.first()
    assert found is not None
    with pytest.raises(ImageNotFound):
        blobs.promise(blob_id=found.blob_id, image_id=pushed.image_id)
    assert restore(owner).status == 200


@pytest.mark.parametrize("names", [["v1"], []])
def test_a_foreign_layer_comes_back_to_a_manifest_that_was_pushed_again_without_it(
    owner: TestKey, store: FilesystemStore, names: list[str]
) -> None:
    # given a manifest with a foreign layer that was pushed, in the recycle bin
    pushed = push_image(owner, make_namespace(owner), store=store)
    needed, foreign = (
        push_blob(owner, pushed.image_id, each, store=store) for each in (b"needed", b"foreign")
    )
    new = replace(make_manifest([needed]), optional_blobs=frozenset([foreign]))
    put = partial(manifests.put, actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=names)
    put()
    sizes = _sizes(pushed.image_id)
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=new.digest)

    # when the image has the layer no more, the manifest is pushed again without it, and then restored
    BlobLease.objects.all().delete()
    push_blob(owner, pushed.image_id, b"needed", store=store)
    put()
    assert not BlobLink.objects.filter(image=pushed.image_id, blob__digest=foreign).exists()
    assert restore(owner).status == 200
    finish(store)

    # then the layer is there as before
    assert collect(store).removed == 0
    assert BlobLink.objects.filter(image=pushed.image_id, blob__digest=foreign).exists()
    assert _sizes(pushed.image_id) == sizes


def _sizes(image_id: UUID) -> tuple[int, int]:
    image = Image.objects.get(pk=image_id)
    return image.size, image.untagged_size


@pytest.mark.parametrize("how", ["expired", "purged"])
@pytest.mark.parametrize("what", ["image", "namespace"])
def test_what_leaves_the_bin_is_deleted_and_then_collected(
    owner: TestKey, store: FilesystemStore, what: str, how: str
) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace, store=store)
    path = f"/images/{pushed.image_id}" if what == "image" else f"/namespaces/{namespace.pk}"
    api.delete(path)
    finish(store)
    assert collect(store).removed == 0  # the links in the bin keep the blobs
    if how == "purged":
        purged = api.delete(f"{BIN}/{entry_id(owner)}")
        assert (purged.status, purged.body["kind"]) == (200, what)
    else:
        expire()
    finish(store)
    assert not Image.objects.exists()
    assert not RecycleBinEntry.objects.exists()
    assert Namespace.objects.exists() == (what == "image")
    assert collect(store).removed == len(pushed.blobs)


def test_nothing_leaves_the_bin_a_minute_before_its_time(owner: TestKey, store: FilesystemStore) -> None:
    namespace = make_namespace(owner)
    push_image(owner, namespace)
    Api(owner).delete(f"/namespaces/{namespace.pk}")
    RecycleBinEntry.objects.update(expires_at=now() + timedelta(minutes=1))
    finish(store)
    assert restore(owner).status == 200


def test_a_namespace_that_goes_for_good_takes_the_entries_in_it_along(
    owner: TestKey, store: FilesystemStore
) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    api.delete(f"/images/{push_image(owner, namespace).image_id}")
    api.delete(f"/namespaces/{namespace.pk}")
    of_namespace = RecycleBinEntry.objects.get(kind="namespace")
    assert api.delete(f"{BIN}/{of_namespace.pk}").status == 200
    assert api.get(BIN).body["total_count"] == 0
    finish(store)
    for model in (RecycleBinEntry, Namespace, Image):
        assert not model._default_manager.exists()


def test_only_administrators_of_the_namespace_see_and_use_its_bin(owner: TestKey) -> None:
    namespace = make_namespace(owner)
    Api(owner).delete(f"/images/{push_image(owner, namespace).image_id}")
    path = f"{BIN}/{entry_id(owner)}"
    stranger = make_key()
    for key, expected in ((stranger, 404), (make_key(READ_ONLY, organization=owner.organization), 403)):
        assert Api(key).get(BIN).body["total_count"] == 0
        assert Api(key).get(path).status == expected
        assert Api(key).post(f"{path}/restore").status == expected
        assert Api(key).delete(path).status == expected
    foreign = Api(stranger).get(BIN, namespace_id=str(namespace.pk))
    assert foreign.body == Api(stranger).get(BIN, namespace_id=UNKNOWN_ID).body
    reader = make_key(READ_ONLY, organization=owner.organization)
    assert Api(reader).get(BIN, namespace_id=str(namespace.pk)).status == 403
    assert Api(None).get(BIN).status == 401
    assert Api(owner).get(f"{BIN}/{UNKNOWN_ID}").status == 404
    assert Api(owner).post(f"{BIN}/nonsense/restore").status == 404
    assert Api(owner).get(BIN, nonsense=1).status == 400
    assert Api(owner).post(f"{path}/restore", nonsense=1).status == 400


def test_a_deletion_without_a_bin_is_final(owner: TestKey, store: FilesystemStore) -> None:
    namespace = make_namespace(owner)
    with override_settings(RECYCLE_BIN=timedelta(0)):
        Api(owner).delete(f"/images/{push_image(owner, namespace).image_id}")
    assert not RecycleBinEntry.objects.exists()
    finish(store)
    assert not Image.objects.exists()


def test_an_image_without_a_push_leaves_nothing_in_the_bin(owner: TestKey) -> None:
    namespace = make_namespace(owner)
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    with transaction.atomic():
        images.start_deletion(images.get_for_update(image_id), actor=owner.actor)
    assert not RecycleBinEntry.objects.exists()


def test_explain_says_what_the_bin_keeps_and_until_when(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace)
    other = push_image(make_key(), make_namespace(make_key()), layers=[b"of another tenant"])
    BlobLease.objects.all().delete()
    for path in (f"/images/{pushed.image_id}", f"/namespaces/{namespace.pk}"):
        api.delete(path)
        first = RecycleBinEntry.objects.earliest("expires_at")  # the image goes with it in any case
        for digest in (pushed.digest, pushed.blobs[1]):
            found = api.get(f"{V1BETA1}/gc/explain", digest=digest).body
            assert (found["state"], found["kept_by"]) == (
                "recycled",
                [f"recycle bin: image {namespace.name}/app"],
            )
            assert datetime.fromisoformat(found["goes_at"]) == first.expires_at + settings.GC_GRACE
    api.post(f"{BIN}/{RecycleBinEntry.objects.get(kind='namespace').pk}/restore")
    assert restore(owner).status == 200
    assert api.get(f"{V1BETA1}/gc/explain", digest=pushed.blobs[1]).body["state"] == "kept"
    assert api.get(f"{V1BETA1}/gc/explain", digest=other.digest).body["state"] == "unknown"


def gc(*options: str) -> dict[str, Any]:
    output = StringIO()
    call_command("gc", "--json", *options, stdout=output)
    found: dict[str, Any] = json.loads(output.getvalue())
    return found


def test_a_layer_that_many_images_in_the_bin_share_is_looked_at_once(
    owner: TestKey, store: FilesystemStore
) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    for number in range(8):
        layers = [b"shared", b"own %d" % number]
        pushed = push_image(owner, namespace, f"app-{number}", layers=layers, config=b"config")
        api.delete(f"/images/{pushed.image_id}")
    finish(store)
    looked_at = list[int]()

    def record(execute: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if "MIN(e.expires_at)" in sql:
            looked_at.extend(parameters)
        return execute(sql, parameters, many, context)

    with connection.execute_wrapper(record):
        found = [blob_id for page in recycled_blobs() for blob_id in page]
    assert sorted(looked_at) == sorted(found) == sorted(Blob.objects.values_list("pk", flat=True))


def test_gc_now_empties_the_bin_and_a_dry_run_counts_it(owner: TestKey, store: FilesystemStore) -> None:
    api, namespace, shared = Api(owner), make_namespace(owner), b"a shared layer"
    kept = push_image(owner, namespace, "kept", layers=[shared])
    for name in ("a", "b"):
        api.delete(f"/images/{push_image(owner, namespace, name, layers=[shared, b'own']).image_id}")
    blob_store().check()
    finish(store)
    BlobLease.objects.all().delete()
    own = digest_of(b"own")
    waiting = gc()["waiting"]
    assert [(each["digest"], each["bytes"]) for each in waiting] == [(own, 3)]
    assert "recycle bin" in waiting[0]["reason"]
    dry = gc("--dry-run")
    assert (dry["blobs"], dry["manifests"]) == (0, 0)
    dry = gc("--dry-run", "--now")
    assert (dry["blobs"], dry["bytes"], dry["manifests"], dry["waiting"]) == (1, 3, 2, [])
    assert gc("--now")["manifests"] == 2
    assert not Blob.objects.filter(digest=own).exists()
    assert set(Image.objects.values_list("pk", flat=True)) == {kept.image_id}


def _deleted_in_each_way(owner: TestKey) -> list[UUID]:
    """Delete an image, a manifest, and a namespace in which an image was deleted; the ids that expire."""
    api, namespace, other = Api(owner), make_namespace(owner), make_namespace(owner)
    api.delete(f"/images/{push_image(owner, namespace, layers=[b'1']).image_id}")
    pushed = push_image(owner, namespace, "b", layers=[b"22"])
    manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=pushed.digest)
    push_image(owner, other, layers=[b"333"])
    api.delete(f"/images/{push_image(owner, other, 'c', layers=[b'4444']).image_id}")
    in_other = RecycleBinEntry.objects.latest("deleted_at").object_id
    api.delete(f"/namespaces/{other.pk}")
    ids = RecycleBinEntry.objects.exclude(object_id=in_other).values_list("object_id", flat=True)
    return list(ids)


@pytest.mark.parametrize("grace", [timedelta(0), timedelta(days=1)])
def test_gc_removes_expired_entries_and_a_dry_run_counts_them(
    owner: TestKey, store: FilesystemStore, grace: timedelta
) -> None:
    # given deletions of each kind whose time in the bin is over, and one whose time is not
    blob_store().check()
    ids = _deleted_in_each_way(owner)
    api, namespace = Api(owner), make_namespace(owner)
    api.delete(f"/images/{push_image(owner, namespace, layers=[b'kept']).image_id}")
    while emptying.settle(entries=10, limit=100):
        pass
    BlobLease.objects.all().delete()
    RecycleBinEntry.objects.filter(object_id__in=ids).update(expires_at=now() - timedelta(hours=1))

    # when the plan is asked for, and then carried out
    with override_settings(GC_GRACE=grace):
        planned, start = gc("--dry-run"), now()
        left = RecycleBinEntry.objects.count()
        done = gc()

    # then both agree, the entry that has not expired stays, and nothing waits until a time in the past
    assert left == 5
    assert (planned["manifests"], done["manifests"]) == (4, 4)
    assert planned["blobs"] == done["blobs"] == (0 if grace else 4)
    assert planned["bytes"] == done["bytes"]
    assert RecycleBinEntry.objects.get().namespace_id == namespace.pk
    for found in (planned, done):
        waiting = {each["digest"]: each for each in found["waiting"]}
        assert (digest_of(b"22") in waiting) == bool(grace)
        assert digest_of(b"kept") in waiting
        assert all(datetime.fromisoformat(each["until"]) > start for each in waiting.values())


def test_explain_names_no_time_that_has_passed(owner: TestKey) -> None:
    api, namespace = Api(owner), make_namespace(owner)
    pushed = push_image(owner, namespace)
    BlobLease.objects.all().delete()
    api.delete(f"/images/{pushed.image_id}")
    RecycleBinEntry.objects.update(expires_at=now() - settings.GC_GRACE * 2)
    for digest in (pushed.digest, pushed.blobs[1]):
        found = api.get(f"{V1BETA1}/gc/explain", digest=digest).body
        assert found["state"] == "recycled"
        assert datetime.fromisoformat(found["goes_at"]) > now()
