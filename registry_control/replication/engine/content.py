"""Queries for the content of an image in the catalogue, for the push of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from registry_control.catalog.models import Image, Manifest, ManifestChild, Referrer, Tag
from registry_control.catalog.selectors.linked import blobs_of_manifest
from registry_control.common.models import NOT_DELETING
from registry_control.replication.engine.work import PlannedBlob
from registry_control.replication.policy import Node

_BATCH: Final = 200  # manifests of one query
# cosign tags signatures and attestations with the digest that they belong to, where it does not use the
# referrers API.
COSIGN_SUFFIXES: Final = (".sig", ".att", ".sbom")


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest of an image with what belongs to it."""

    node: Node
    media_type: str
    blobs: tuple[PlannedBlob, ...]
    tag: str  # the tag of cosign by which it belongs to another manifest; empty if there is none


def find_image(namespace_id: UUID, name: str) -> Image | None:
    """An image of a namespace by its name, unless it is being deleted."""
    return Image.objects.filter(NOT_DELETING, namespace=namespace_id, name=name).first()


def find_root(image: Image, reference: str) -> Manifest | None:
    """The manifest of a tag or digest, without its payload."""
    found = Manifest.objects.defer("payload").filter(image=image)
    if ":" in reference:
        return found.filter(digest=reference).first()
    return found.filter(tags__name=reference, tags__in=Tag.objects.filter(NOT_DELETING)).first()


def walk(image: Image, root: Manifest) -> Iterator[StoredManifest]:
    """The root with its children, their referrers, and so on; each once, whatever refers to what."""
    seen = {root.pk}
    waiting: list[tuple[int, str]] = [(root.pk, "")]
    while waiting:
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        tags = dict(batch)
        for manifest in _read(batch):
            yield StoredManifest(
                Node(manifest.digest, _children(manifest.pk), manifest.subject_digest),
                manifest.media_type,
                _blobs(manifest.pk),
                tags[manifest.pk],
            )
        for pk, tag in _successors(image, [pk for pk, _ in batch]):
            if pk not in seen:
                seen.add(pk)
                waiting.append((pk, tag))


def payload_of(image_id: UUID, digest: str) -> bytes | None:
    """The bytes of a manifest; None if it was deleted."""
    found = Manifest.objects.filter(image=image_id, digest=digest).values_list("payload", flat=True).first()
    return None if found is None else bytes(found)


def tags_reaching(image: Image, digest: str, *, limit: int = 1000) -> list[str]:
    """The tags of manifests that have a digest, or of which it is a child or referrer, over any steps."""
    seen: set[int] = set()
    frontier = set(Manifest.objects.filter(image=image, digest=digest).values_list("pk", flat=True))
    while frontier and len(seen) < limit:
        seen |= frontier
        subjects = Manifest.objects.filter(pk__in=frontier).exclude(subject_digest="")
        upwards = set(ManifestChild.objects.filter(child__in=frontier).values_list("parent", flat=True))
        upwards |= set(
            Manifest.objects.filter(
                image=image, digest__in=list(subjects.values_list("subject_digest", flat=True))
            ).values_list("pk", flat=True)
        )
        frontier = upwards - seen
    return list(
        Tag.objects.filter(NOT_DELETING, image=image, manifest__in=seen)
        .order_by("name")
        .values_list("name", flat=True)
    )


def subject_of_tag(tag: str) -> str | None:
    """The digest that a tag of cosign or a fallback tag names; None for other tags."""
    for suffix in (*COSIGN_SUFFIXES, ""):
        algorithm, dash, encoded = tag.removesuffix(suffix).partition("-")
        if tag.endswith(suffix) and dash and algorithm == "sha256" and len(encoded) == 64:
            return f"{algorithm}:{encoded}"
    return None


def _read(batch: Iterable[tuple[int, str]]) -> list[Manifest]:
    found = Manifest.objects.defer("payload").in_bulk([pk for pk, _ in batch])
    return [found[pk] for pk, _ in batch if pk in found]


def _children(manifest_id: int) -> tuple[str, ...]:
    children = ManifestChild.objects.filter(parent=manifest_id).order_by("pk")
    return tuple(children.values_list("child__digest", flat=True))


def _blobs(manifest_id: int) -> tuple[PlannedBlob, ...]:
    return tuple(PlannedBlob(*found) for found in blobs_of_manifest(manifest_id))


def _successors(image: Image, manifest_ids: list[int]) -> list[tuple[int, str]]:
    """Children, referrers and cosign's tagged manifests of some manifests, with these tags."""
    digests = list(Manifest.objects.filter(pk__in=manifest_ids).values_list("digest", flat=True))
    children = ManifestChild.objects.filter(parent__in=manifest_ids).values_list("child", flat=True)
    referrers = Referrer.objects.filter(image=image, subject_digest__in=digests).values_list(
        "manifest", flat=True
    )
    names = [digest.replace(":", "-") + suffix for digest in digests for suffix in COSIGN_SUFFIXES]
    tagged = Tag.objects.filter(NOT_DELETING, image=image, name__in=names).values_list("manifest", "name")
    return [*((pk, "") for pk in children), *((pk, "") for pk in referrers), *tagged]
