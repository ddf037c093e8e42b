"""The contents of the life cycle: a few blobs, and manifests that list them."""

import json
from collections.abc import Collection
from typing import Final

from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.factories import digest_of
from tests.integration.gc.life_cycle import ManifestModel

CONTENTS: Final = {
    digest_of(content): content for content in (b"0", b"one", b"number two", b"three" * 50, b"4")
}
"""All blobs, by their digests."""


def make_image(contents: Collection[str], *, subject: ManifestModel | None = None) -> ManifestModel:
    """A manifest of blobs, perhaps about another manifest, such as a signature of it."""
    config, *layers = (
        {"mediaType": "application/octet-stream", "digest": digest, "size": len(CONTENTS[digest])}
        for digest in contents
    )
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    if subject is not None:
        document["subject"] = _descriptor(subject)
    payload = json.dumps(document).encode()
    return ManifestModel(
        digest_of(payload),
        payload,
        OCI_MANIFEST,
        blobs=frozenset(contents),
        subject=subject.digest if subject else "",
    )


def make_index(children: Collection[ManifestModel]) -> ManifestModel:
    """An index of manifests."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(child) for child in children],
    }
    payload = json.dumps(document).encode()
    listed = frozenset(child.digest for child in children)
    return ManifestModel(digest_of(payload), payload, OCI_INDEX, children=listed)


def _descriptor(manifest: ManifestModel) -> dict[str, object]:
    return {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.payload)}
