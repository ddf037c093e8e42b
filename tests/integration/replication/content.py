"""Content for both sides: layers, images, indexes, signatures."""

import json
from collections.abc import Sequence
from typing import Any

from registry_control.catalog import ingest
from registry_control.catalog.services import images
from registry_control.namespaces.models import Namespace
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.oci.manifest import parse_manifest
from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry_data.storage.base import BlobStore
from tests.factories import TestKey, push_blob
from tests.services.remote import send_blob

CONFIG = b"{}"


def descriptor(content: bytes, media_type: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content), **more}


def image_manifest(*layers: bytes, subject: bytes | None = None, **more: Any) -> bytes:
    """An image manifest; `subject` are the bytes of another one."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG),
        "layers": [descriptor(layer) for layer in layers],
        **more,
    }
    if subject is not None:
        document["subject"] = descriptor(subject, json.loads(subject)["mediaType"])
    return json.dumps(document).encode()


def index_manifest(*children: bytes) -> bytes:
    listed = [
        descriptor(child, OCI_MANIFEST, platform={"os": "linux", "architecture": f"arch{number}"})
        for number, child in enumerate(children)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def media_type(manifest: bytes) -> str:
    return str(json.loads(manifest)["mediaType"])


class Local:
    """An image of the registry to which content is pushed."""

    def __init__(self, owner: TestKey, namespace: Namespace, name: str, store: BlobStore) -> None:
        self._owner, self._store = owner, store
        self.id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=name)

    def push(self, manifest: bytes, *layers: bytes, tags: Sequence[str] = ()) -> str:
        for layer in (CONFIG, *layers):
            push_blob(self._owner, self.id, layer, store=self._store)
        verified = ingest.verify_payload(manifest, None)
        parsed = parse_manifest(manifest, media_type(manifest))
        ingest.store_manifest(verified, parsed, actor=self._owner.actor, image_id=self.id, tag_names=tags)
        return str(verified.digest)


def push_remote(
    remote: RemoteRegistry, repository: str, manifest: bytes, *layers: bytes, tag: str | None = None
) -> str:
    """Push to another registry."""
    for layer in (CONFIG, *layers):
        send_blob(remote, repository, layer)
    digest = Digest.of(manifest)
    remote.put_manifest(repository, tag or digest, media_type=media_type(manifest), payload=manifest)
    return str(digest)
