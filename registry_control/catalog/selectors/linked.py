"""Queries for the blobs that the manifests of an image link."""

from typing import NamedTuple
from uuid import UUID

from registry_control.catalog.models import Blob, BlobLink
from registry_control.catalog.selectors.holders import StoredBlob


class LinkedBlob(NamedTuple):
    """A blob that a manifest lists and the registry has."""

    digest: str
    size: int  # bytes


def blobs_of_manifest(manifest_id: int) -> list[LinkedBlob]:
    """The blobs of one manifest, in the order in which they were linked."""
    links = BlobLink.objects.filter(manifest=manifest_id).order_by("pk")
    return [LinkedBlob(*found) for found in links.values_list("blob__digest", "blob__size")]


def blob_of_image(image_id: UUID, digest: str) -> StoredBlob | None:
    """A live blob that a manifest of an image links; None if there is none."""
    live = Blob.objects.filter(digest=digest, state=Blob.State.LIVE, links__image=image_id)
    found = live.values_list("pk", "size", "storage_key").first()
    return None if found is None else StoredBlob(*found)
