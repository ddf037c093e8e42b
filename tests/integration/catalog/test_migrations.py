"""Migrations preserve the rows of an earlier version, forwards and backwards, on a separate database."""

from collections.abc import Callable

from tests.services.stack import Stack

# Pushes a referrer, migrates to the schema that stored its annotations as JSON, and forward again.
_REFERRERS = """
import json
from django.core.management import call_command
from django.db import connection
from registry_control.catalog.models import Manifest, Referrer
from registry_control.catalog.services import manifests
from tests.factories import make_key, make_namespace, push_image

owner = make_key()
pushed = push_image(owner, make_namespace(owner))
descriptor = '{"mediaType": "application/x", "digest": "sha512:0", "size": 1, "artifactType": "a/b", '
descriptor = (descriptor + '"annotations": {"one": "\u00e4", "two": ""}}').encode()
new = manifests.NewManifest(
    digest="sha512:0",
    media_type="application/x",
    payload=b"x",
    blobs=frozenset(),
    children=frozenset(),
    subject=pushed.digest,
    artifact_type="a/b",
    descriptor=descriptor,
)
manifests.put(actor=owner.actor, image_id=pushed.image_id, new=new, tag_names=())

call_command("migrate", "catalog", "0007", verbosity=0)
with connection.cursor() as cursor:
    cursor.execute("SELECT annotations FROM catalog_manifest WHERE digest = 'sha512:0'")
    found = cursor.fetchone()[0]
assert (json.loads(found) if isinstance(found, str) else found) == {"one": "\u00e4", "two": ""}, found
call_command("migrate", "catalog", verbosity=0)
referrer = Referrer.objects.get()
assert bytes(referrer.descriptor) == descriptor, bytes(referrer.descriptor)
assert (referrer.subject_digest, referrer.artifact_type) == (pushed.digest, "a/b")
assert (str(referrer.image_id), referrer.size) == (str(pushed.image_id), len(descriptor))
assert referrer.manifest == Manifest.objects.get(digest="sha512:0")
"""


def test_referrers_of_an_earlier_version_are_listed_unchanged(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack()
    stack.manage("migrate")
    stack.manage("shell", "-c", _REFERRERS)


# Leaves a blob without references, a leased one and a linked one; the queue of garbage collection is a table
# of a later version than 0011.
_UNREFERENCED = """
from django.core.management import call_command
from registry_control.catalog.models import Blob, BlobLease, BlobReview
from tests.factories import make_key, make_namespace, push_blob, push_image

owner = make_key()
pushed = push_image(owner, make_namespace(owner), layers=[b"linked"])
leased = push_blob(owner, pushed.image_id, b"leased")
forgotten = [push_blob(owner, pushed.image_id, b"forgotten %d" % number) for number in range(7)]
BlobLease.objects.exclude(blob__digest=leased).delete()
Blob.objects.filter(digest=pushed.blobs[0]).update(state="damaged")  # a state that 0016 does not know

call_command("migrate", "catalog", "0011", verbosity=0)
call_command("migrate", "catalog", verbosity=0)
assert set(Blob.objects.values_list("state", flat=True)) == {"live"}
assert set(BlobReview.objects.values_list("blob__digest", flat=True)) == set(forgotten)

from importlib import import_module
migration = import_module("registry_control.catalog.migrations.0013_queue_unreferenced_blobs")
migration.BATCH = 2
call_command("migrate", "catalog", "0012", verbosity=0)
before = set(BlobReview.objects.values_list("blob_id", "unreferenced_since"))
BlobReview.objects.filter(blob__digest__in=forgotten[3:]).delete()
call_command("migrate", "catalog", verbosity=0)
assert set(BlobReview.objects.values_list("blob__digest", flat=True)) == set(forgotten)
assert len(before & set(BlobReview.objects.values_list("blob_id", "unreferenced_since"))) == 3
"""


def test_blobs_without_references_of_an_earlier_version_are_queued_for_garbage_collection(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.manage("shell", "-c", _UNREFERENCED)


# Namespaces of before 0010 have a row of retention only if rules were stored.
_RETENTION = """
from importlib import import_module
from django.core.management import call_command
from registry_control.audit.services import SYSTEM
from registry_control.gc.retention import parse
from registry_control.gc.services import retention
from registry_control.namespaces.models import Namespace, Retention
from tests.factories import make_key, make_namespace

owner = make_key()
namespaces = [make_namespace(owner) for _ in range(5)]
retention.store(namespaces[0], parse({"protected_tags": ["v*"]}), actor=SYSTEM)
call_command("migrate", "namespaces", "0009", verbosity=0)
assert [row.protected_tags for row in Retention.objects.all()] == [["v*"]]

import_module("registry_control.namespaces.migrations.0010_retention_of_each_namespace")._BATCH = 2
call_command("migrate", "namespaces", verbosity=0)
assert Retention.objects.count() == Namespace.objects.count() == 5
assert [row.pk for row in Retention.objects.all() if row.protected_tags] == [namespaces[0].pk]
"""


def test_each_namespace_of_an_earlier_version_gets_a_row_of_retention(
    make_stack: Callable[..., Stack],
) -> None:
    make_stack().manage("shell", "-c", _RETENTION)


# Entries of before 0025 do not have the subject of a manifest.
_SUBJECTS = """
from datetime import timedelta
from django.core.management import call_command
from django.test import override_settings
from registry_control.catalog.services import manifests
from registry_control.namespaces.models import RecycleBinEntry
from tests.factories import make_key, make_manifest, make_namespace, push_image

owner = make_key()
pushed = push_image(owner, make_namespace(owner))
signature = make_manifest(subject=pushed.digest)
manifests.put(actor=owner.actor, image_id=pushed.image_id, new=signature, tag_names=())
with override_settings(RECYCLE_BIN=timedelta(days=1)):
    for digest in (signature.digest, pushed.digest):
        manifests.delete(actor=owner.actor, image_id=pushed.image_id, digest=digest)
expected = {(signature.digest, pushed.digest), (pushed.digest, "")}
entries = RecycleBinEntry.objects.values_list("digest", "subject_digest")
assert set(entries) == expected, entries
call_command("migrate", "catalog", "0024", verbosity=0)
call_command("migrate", "namespaces", "0010", verbosity=0)
call_command("migrate", verbosity=0)
assert set(entries.all()) == expected, entries
"""


def test_the_subjects_of_deleted_manifests_are_added_to_the_recycle_bin(
    make_stack: Callable[..., Stack],
) -> None:
    make_stack().manage("shell", "-c", _SUBJECTS)


# Leaves a finding of each state, two of them of the same blob.
_FINDINGS = """
from django.core.management import call_command
from registry_control.common.clock import now
from registry_control.integrity.models import BlobFault

fault = {"digest": "sha256:1", "size": 1, "storage_key": "k", "detail": "d"}
dropped = BlobFault.objects.create(blob_id=1, kind="damaged", dropped_at=now(), **fault)
BlobFault.objects.create(blob_id=1, kind="missing", **fault)
healed = BlobFault.objects.create(blob_id=2, kind="missing", healed_at=now(), **fault)

call_command("migrate", "integrity", "0003", verbosity=0)
call_command("migrate", "integrity", verbosity=0)
ended = [(1, None), (1, dropped.dropped_at), (2, healed.healed_at)]
found = BlobFault.objects.filter(dropped_at=None).values_list("blob_id", "healed_at")
assert sorted(found, key=str) == sorted(ended, key=str), found
"""


def test_findings_survive_a_migration_to_a_schema_without_dropped_ones(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack()
    stack.manage("migrate")
    stack.manage("shell", "-c", _FINDINGS)
