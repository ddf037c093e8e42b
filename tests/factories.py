"""Test data, created by the product's services in the test process.

owner = make_key()                        # an organization, an application in it, a key with full access
namespace = make_namespace(owner, is_public=True)
pushed = push_image(owner, namespace, "app", tags=("a", "b"))
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from registry_control.access.policy import Principal
from registry_control.access.services import actor_of, authenticate
from registry_control.audit.services import SYSTEM, Actor
from registry_control.catalog import ingest
from registry_control.catalog.models import Image, Tag
from registry_control.catalog.services import blobs, images, manifests, uploads
from registry_control.identity import services as identity
from registry_control.identity.models import Application, Organization, Project, User
from registry_control.identity.permission_sets import PermissionSet
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.manifest import parse_manifest
from registry_data.oci.media_types import OCI_MANIFEST
from registry_data.storage.base import BlobStore, UploadId

READ_ONLY: Final = PermissionSet.READ_ONLY
PUSH: Final = PermissionSet.PUSH
FULL_ACCESS: Final = PermissionSet.FULL_ACCESS
OPERATOR: Final = PermissionSet.OPERATOR
_numbers: Final = itertools.count(1)


def unique(prefix: str) -> str:
    """A name that is unique in this run, also valid for a namespace."""
    return f"{prefix}-{next(_numbers)}"


def make_organization(name: str | None = None) -> Organization:
    """A tenant with its default project."""
    return identity.create_organization(actor=SYSTEM, name=name or unique("organization"))


def default_project(organization: Organization) -> Project:
    """The project with the organization's own id."""
    return Project.objects.get(pk=organization.pk)


def make_project(organization: Organization) -> Project:
    """Another project of an organization."""
    return identity.create_project(actor=SYSTEM, organization=organization, name=unique("project"))


def make_user(organization: Organization | None = None, **options: Any) -> User:
    """A user; `options` are those of the service: password, is_administrator."""
    home = organization or make_organization()
    return identity.create_user(actor=SYSTEM, username=unique("user"), organization=home, **options)


def make_application(organization: Organization | None = None) -> Application:
    """An application: a principal that is not a person."""
    home = organization or make_organization()
    return identity.create_application(actor=SYSTEM, organization=home, name=unique("robot"))


@dataclass(frozen=True, slots=True)
class TestKey:
    """An API key with its secret and its holder."""

    __test__ = False  # not for pytest to collect

    access_key: str
    secret: str
    holder: User | Application

    @property
    def organization(self) -> Organization:
        organization = self.holder.organization
        assert organization is not None
        return organization

    @property
    def principal(self) -> Principal:
        """The holder with its current rights, as a request with the secret gets it."""
        return authenticate(secret=self.secret).principal

    @property
    def actor(self) -> Actor:
        """The holder as the actor of services and audit rows."""
        return actor_of(self.principal)


def make_key(
    *permission_sets: PermissionSet,
    organization: Organization | None = None,
    holder: User | Application | None = None,
    project: Project | None = None,
    expires_at: datetime | None = None,
    rights: bool = True,
) -> TestKey:
    """A key of `holder`, by default of a new application, with these permission sets (default: full access).

    With `project`, the rights are on that project only, and it becomes the key's default project.
    `rights=False` grants none.
    """
    owner = holder or make_application(organization)
    for permission_set in (permission_sets or (FULL_ACCESS,)) if rights else ():
        identity.grant_policy(
            actor=SYSTEM, holder=owner, permission_set=permission_set, project=project, name=unique("policy")
        )
    issued = identity.create_api_key(
        actor=SYSTEM, holder=owner, default_project=project, expires_at=expires_at
    )
    return TestKey(issued.api_key.access_key, issued.secret, owner)


def make_namespace(
    owner: TestKey, name: str | None = None, *, is_public: bool = False, project: Project | None = None
) -> Namespace:
    """A namespace created, and therefore owned, by the key's holder."""
    return namespaces.create(
        principal=owner.principal,
        name=name or unique("namespace"),
        description="",
        is_public=is_public,
        project_id=project.pk if project else None,
    )


@dataclass(frozen=True, slots=True)
class Pushed:
    """A pushed image."""

    image_id: UUID
    digest: str  # of the manifest
    blobs: tuple[str, ...]  # digests: config, then layers
    size: int  # bytes of the distinct blobs

    @property
    def image(self) -> Image:
        return Image.objects.select_related("namespace__project").get(pk=self.image_id)

    def tag(self, name: str) -> Tag:
        return Tag.objects.get(image=self.image_id, name=name)


def push_image(
    pusher: TestKey,
    namespace: Namespace,
    name: str = "app",
    *,
    tags: Sequence[str] = ("latest",),
    layers: Sequence[bytes] = (b"a layer",),
    config: bytes = b"{}",
    store: BlobStore | None = None,
) -> Pushed:
    """Push like the data plane: sessions, blobs, manifest, tags. Without `store`, no bytes are stored."""
    image_id = images.get_or_create(actor=pusher.actor, namespace_id=namespace.pk, name=name)
    contents = (config, *layers)
    digests = tuple(push_blob(pusher, image_id, content, store=store) for content in contents)
    payload = _manifest(digests, contents)
    verified = ingest.verify_payload(payload, None)
    parsed = parse_manifest(payload, OCI_MANIFEST)
    ingest.store_manifest(verified, parsed, actor=pusher.actor, image_id=image_id, tag_names=tags)
    size = sum(len(content) for content in dict(zip(digests, contents, strict=True)).values())
    return Pushed(image_id, str(verified.digest), digests, size)


def make_manifest(
    blobs: Sequence[str] = (), *, children: Sequence[str] = (), subject: str = ""
) -> manifests.NewManifest:
    """A manifest as the data plane has parsed it; its bytes are random, so that each is a new one."""
    payload = os.urandom(20)
    return manifests.NewManifest(
        digest=digest_of(payload),
        media_type=OCI_MANIFEST,
        payload=payload,
        blobs=frozenset(blobs),
        children=frozenset(children),
        subject=subject,
        artifact_type="",
        descriptor=b"{}" if subject else b"",
    )


def push_blob(pusher: TestKey, image_id: UUID, content: bytes, *, store: BlobStore | None = None) -> str:
    """Upload a blob; returns its digest. Without `store`, only the catalogue knows it."""
    digest = Digest.of(content)
    if store is not None:
        receive_blob([content], actor=pusher.actor, image_id=image_id, claimed=digest, store=store)
        return str(digest)
    session = uploads.start(actor=pusher.actor, image_id=image_id, algorithm=digest.algorithm)
    new = blobs.NewBlob(str(digest), len(content), ingest.published_key(UploadId(session.hex), digest))
    blobs.record_upload(session_id=session, image_id=image_id, new=new)
    return str(digest)


def receive_blob(
    pieces: Iterable[bytes], *, actor: Actor, image_id: UUID, claimed: Digest, store: BlobStore
) -> None:
    """Bring a blob into the catalogue as a replication does, without an interruption."""
    session_id = ingest.start_blob(actor=actor, image_id=image_id, claimed=claimed, store=store)
    ingest.continue_blob(session_id, lambda _: pieces, image_id=image_id, claimed=claimed, store=store)


def digest_of(content: bytes) -> str:
    """The sha256 digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _manifest(digests: Sequence[str], contents: Sequence[bytes]) -> bytes:
    config, *layers = (
        {"digest": digest, "size": len(content), "mediaType": "application/octet-stream"}
        for digest, content in zip(digests, contents, strict=True)
    )
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return json.dumps(document).encode()
