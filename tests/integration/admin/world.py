"""At least one row of every model, and the models that have pages."""

from uuid import uuid4

from django.apps import apps

from registry_control.access.services import rotate_signing_keys
from registry_control.administration.models import SignInCounter
from registry_control.audit.models import AuditEvent
from registry_control.catalog.models import (
    Blob,
    BlobLease,
    BlobLink,
    BlobReview,
    Manifest,
    ManifestChild,
    MissingChild,
    Referrer,
    TagHistory,
    UploadSession,
)
from registry_control.catalog.services import blobs, uploads
from registry_control.common.clock import now
from registry_control.common.models import Change, ClockWatch
from registry_control.gc.models import (
    Breaker,
    GcRun,
    Inventory,
    MarkedBytes,
    QueueFigures,
    RetentionRun,
)
from registry_control.gc.retention import parse
from registry_control.gc.services import retention, runs
from registry_control.identity.models import PolicyRule
from registry_control.integrity.models import BlobCheck, BlobFault, Job, UnknownObject
from registry_control.integrity.policy import Content, Finding
from registry_control.integrity.selectors.due import blob_with_digest
from registry_control.integrity.services import checks, faults
from registry_control.namespaces import recycling
from registry_control.namespaces.models import Namespace, RecycleBinEntry
from registry_control.replication.models import (
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionManifest,
    PushEvent,
    TargetBlob,
)
from registry_control.replication.services import rules
from registry_control.serving.models import Installation, LeaderLease, WorkerHeartbeat
from tests.factories import (
    Pushed,
    TestKey,
    push_blob,
    push_image,
)
from tests.integration.replication.scene import make_rule, make_target

URL = "https://registry.example.com"
OURS = [model for model in apps.get_models() if model.__module__.startswith("registry_control")]
# Inlines of the policy's page, and rows that only coordinate processes or are derived from others.
REPLICATION_WORK = {
    ExecutionImage,
    ExecutionManifest,
    ExecutionBlob,
    ExecutionImageBlob,
    PushEvent,
    TargetBlob,
}
COORDINATION = {Change, ClockWatch, Installation, Job, LeaderLease, WorkerHeartbeat, SignInCounter}
# Shown by the page `Why has the disk not shrunk?`.
GC_FIGURES = {Breaker, Inventory, MarkedBytes, QueueFigures}
WITHOUT_PAGES = {
    PolicyRule,
    Referrer,
    TargetBlob,
    *COORDINATION,
    *REPLICATION_WORK,
    *GC_FIGURES,
}
MODELS = [model for model in OURS if model not in WITHOUT_PAGES]
READ_ONLY = {
    Execution,
    MissingChild,
    Blob,
    BlobCheck,
    BlobFault,
    UnknownObject,
    BlobReview,
    GcRun,
    RetentionRun,
    BlobLease,
    BlobLink,
    ManifestChild,
    UploadSession,
    AuditEvent,
    RecycleBinEntry,
    TagHistory,
}


def make_world(owner: TestKey, namespace: Namespace) -> Pushed:
    """At least one row of every model."""
    pushed = push_image(owner, namespace, tags=("a", "b"))
    first = Manifest.objects.get(digest=pushed.digest, image=pushed.image_id)
    parent = Manifest.objects.create(
        image_id=pushed.image_id, digest=f"sha256:{uuid4().hex * 2}", media_type="x", payload=b"", size=0
    )
    ManifestChild.objects.create(parent=parent, child=first)
    MissingChild.objects.create(image_id=pushed.image_id, parent=parent, digest=f"sha256:{uuid4().hex * 2}")
    uploads.start(actor=owner.actor, image_id=pushed.image_id, algorithm="sha256")
    leased = push_blob(owner, pushed.image_id, b"released")
    blobs.remove(
        actor=owner.actor,
        image_id=pushed.image_id,
        blob_id=Blob.objects.get(digest=leased).pk,
        digest=leased,
    )
    retention.store(namespace, parse({"untagged_days": 9}), actor=owner.actor)
    runs.start(actor=owner.actor, kind=GcRun.Kind.REQUESTED, dry_run=True)
    broken = blob_with_digest(push_blob(owner, pushed.image_id, b"broken"))
    assert broken is not None
    faults.settle(broken.id, key=broken.key, finding=Finding(Content.DAMAGED, "other bytes"))
    UnknownObject.objects.create(name="blobs/x", kind="content", upload="0" * 32, size=1)
    checks.add(broken, Finding(Content.DAMAGED, "other bytes"))
    rotate_signing_keys()
    TagHistory.objects.create(tag_id=uuid4(), digest=pushed.digest, since=now(), until=now())
    recycling.keep(
        RecycleBinEntry.Kind.IMAGE,
        [recycling.Deleted(name="deleted/image", object_id=uuid4(), row_id=None, size=0)],
        namespace=namespace,
        actor=owner.actor,
    )
    rules.run(principal=owner.principal, rule_id=make_rule(owner, namespace, make_target(owner, URL)).pk)
    return pushed
