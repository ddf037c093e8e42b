"""Copies images of a target into the registry, through the same verification as a push (`catalog/ingest.py`).

Content that the image has is not transferred, nor are blobs of other images of the namespace. Blobs of other
namespaces are: a target could otherwise name digests to get content that the rule's owner may not read.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

from registry_control.catalog import ingest
from registry_control.catalog.errors import (
    BlobNotFound,
    DigestMismatch,
    ImageNotFound,
    MissingContent,
    UploadNotFound,
)
from registry_control.catalog.models import Image, Manifest
from registry_control.catalog.references import broken_blobs
from registry_control.catalog.selectors import resolve
from registry_control.catalog.selectors.holders import images_with
from registry_control.catalog.services import blobs, images, protection, uploads
from registry_control.replication.engine import content, outcomes
from registry_control.replication.engine.work import (
    TURN,
    CannotReplicate,
    Context,
    ImagePlan,
    LostContent,
    PlannedBlob,
    Progress,
    count_completed,
    planned_manifests,
)
from registry_control.replication.models import ExecutionBlob, ExecutionImage, ExecutionManifest
from registry_control.replication.policy import Node
from registry_data.client.errors import ContentMismatch
from registry_data.oci.digest import Digest
from registry_data.oci.manifest import Descriptor, ParsedManifest, parse_manifest
from registry_data.storage.base import Key, StorageError

# How long a blob waits for the others of its image, with a short REGISTRY_LEASE as well. When the execution
# has finished, `triggers.clean_up` shortens the leases.
_HELD: Final = timedelta(hours=24)
_MANIFESTS: Final = 10_000  # of one image, with its children and referrers
_PAYLOADS: Final = 128 * 1024 * 1024  # bytes of these manifests together


class _Waiting:
    """The manifests of an image that have been found and not read yet, each once, and no endless number.

    A hostile source can answer that each manifest has yet another referrer.
    """

    def __init__(self) -> None:
        self._found: set[Digest] = set()
        self._waiting: deque[tuple[Digest, str]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, digest: Digest, tag: str = "") -> None:
        """Add a manifest, with the tag of cosign by which it belongs to another one."""
        if digest in self._found:
            return
        if len(self._found) == _MANIFESTS:
            raise CannotReplicate(f"more than {_MANIFESTS} children and referrers belong to it at the source")
        self._found.add(digest)
        self._waiting.append((digest, tag))

    def next(self) -> tuple[Digest, str]:
        """Remove the one that was found first."""
        return self._waiting.popleft()

    def count(self, payload: bytes) -> None:
        """Count the bytes of a manifest."""
        self._bytes += len(payload)
        if self._bytes > _PAYLOADS:
            raise CannotReplicate(f"its manifests at the source have more than {_PAYLOADS} bytes")


def plan(context: Context, image: ExecutionImage) -> None:
    """Insert the rows of an image's manifests and blobs, with the children and referrers at the source.

    Raises:
        CannotReplicate: the source no longer has the tag, or lists children and referrers without end.
        TagProtected: the namespace protects the tag, which points to another manifest here.
        RemoteError: the source does not answer, or sends something else than a manifest.
    """
    root = context.registry.get_manifest(image.source, image.reference)
    if root is None:
        raise CannotReplicate("the source no longer has it")
    rows = ImagePlan(context, image)
    stored = content.find_image(context.namespace.pk, image.destination)
    if stored is not None and (tag := _tag_of(image)):
        protection.check_move(stored, tag, to=str(root.digest))
    waiting = _Waiting()
    waiting.add(root.digest)
    fetched = {root.digest: (root.media_type, root.payload)}
    while waiting:
        digest, tag = waiting.next()
        found = fetched.pop(digest, None) or _manifest(context, image, stored, digest)
        if found is None:
            continue  # the index is sparse; `copy_manifests` refuses it unless the namespace accepts it
        waiting.count(found[1])
        parsed = parse_manifest(found[1], found[0])
        own = "" if tag == image.reference else tag
        _add(rows, digest, found, parsed, tag=own, is_stored=_is_stored(stored, digest))
        for child in parsed.platforms:
            waiting.add(child)
        for entry in context.registry.referrers(image.source, digest):
            waiting.add(entry.digest)
        if not tag:
            for each, name in _tagged_by_cosign(context, image, digest):
                waiting.add(each, name)
    rows.finish(str(root.digest))


def copy_blob(context: Context, blob: ExecutionBlob) -> None:
    """Bring a blob into the image: it may be there, or in another image of the namespace, or is transferred.

    Raises:
        DigestMismatch, ContentMismatch: the source sent something else.
        CatalogError: the image cannot be written to.
    """
    image_id = images.get_or_create(
        actor=context.actor, namespace_id=context.namespace.pk, name=blob.destination
    )
    if _lease(context, blob, image_id):
        count_completed(context, blob)
        return
    _transfer(context, blob, image_id)
    _, found = resolve.blob(context.namespace.name, blob.destination, blob.digest)
    try:
        if found is None:
            raise BlobNotFound
        blobs.promise(blob_id=found.id, image_id=image_id, at_least=_HELD)
    except BlobNotFound as error:
        raise LostContent("the blob was deleted as soon as it was stored", [blob.digest]) from error


def _transfer(context: Context, blob: ExecutionBlob, image_id: UUID) -> None:
    claimed = Digest.parse(blob.digest)
    session_id = UUID(blob.upload) if blob.upload else _start(context, image_id, claimed)
    progress: list[Progress] = []

    def read(offset: int) -> Iterator[bytes]:
        progress.append(Progress(context, offset=offset, turn=TURN))
        return _read(context, blob, claimed, progress[0], offset)

    try:
        ingest.continue_blob(session_id, read, image_id=image_id, claimed=claimed, store=context.store)
    except (ContentMismatch, DigestMismatch, ImageNotFound, UploadNotFound):
        outcomes.save_upload(context.work, "")  # the next attempt begins a new one
        with suppress(UploadNotFound, StorageError):  # the worker removes the session otherwise
            uploads.cancel(session_id=session_id, image_id=image_id, store=context.store)
        raise
    finally:
        for each in progress:
            each.save()
    outcomes.save_upload(context.work, "")


def copy_manifests(context: Context, image: ExecutionImage) -> None:
    """Record the manifests of an image, whose blobs are there, and set its tag at the end.

    Raises:
        LostContent: blobs of the image were deleted meanwhile.
        CannotReplicate: an index lists manifests that the source does not have.
        CatalogError: the image cannot be written to.
    """
    image_id = images.get_or_create(
        actor=context.actor, namespace_id=context.namespace.pk, name=image.destination
    )
    for row in planned_manifests(image):
        context.check()
        if row.payload is not None or row.tag:
            _store(context, image_id, row, tag=row.tag)
    root = ExecutionManifest.objects.get(image=image, is_root=True)
    _store(context, image_id, root, tag=_tag_of(image))


def _tag_of(image: ExecutionImage) -> str:
    """The tag to set; empty if the rule names a digest."""
    return "" if ":" in image.reference else image.reference


def _manifest(
    context: Context, image: ExecutionImage, stored: Image | None, digest: Digest
) -> tuple[str, bytes] | None:
    """Media type and bytes of a manifest, from the registry if the image has it; None if nobody has it."""
    if stored is not None:
        own = Manifest.objects.filter(image=stored, digest=str(digest))
        for media_type, payload in own.values_list("media_type", "payload"):
            return media_type, bytes(payload)
    found = context.registry.get_manifest(image.source, digest)
    return None if found is None else (found.media_type, found.payload)


def _tagged_by_cosign(
    context: Context, image: ExecutionImage, digest: Digest
) -> Iterator[tuple[Digest, str]]:
    """The signatures and attestations of a manifest that earlier versions of cosign tagged."""
    for suffix in content.COSIGN_SUFFIXES:
        tag = f"{digest.algorithm}-{digest.encoded}{suffix}"
        found = context.registry.head_manifest(image.source, tag)
        if found is not None:
            yield found.digest, tag


def _is_stored(stored: Image | None, digest: Digest) -> bool:
    """Whether an image has a manifest with all its blobs; damaged and missing ones are transferred again."""
    if stored is None:
        return False
    found = Manifest.objects.filter(image=stored, digest=str(digest)).values_list("pk", flat=True).first()
    return found is not None and not broken_blobs(found)


def _add(
    rows: ImagePlan,
    digest: Digest,
    found: tuple[str, bytes],
    parsed: ParsedManifest,
    *,
    tag: str,
    is_stored: bool,
) -> None:
    """Add a manifest; one that the image has needs neither its bytes nor its blobs."""
    node = Node(
        str(digest),
        tuple(map(str, parsed.platforms)),
        str(parsed.subject.digest) if parsed.subject else "",
    )
    needed = () if is_stored else tuple(_blobs(parsed))
    rows.add(
        node, media_type=parsed.media_type, payload=None if is_stored else found[1], tag=tag, blobs=needed
    )


def _blobs(parsed: ParsedManifest) -> Iterator[PlannedBlob]:
    """Config, layers and the blobs that an index lists; no foreign layers, which are elsewhere."""
    listed: list[Descriptor] = [*parsed.layers, *([parsed.config] if parsed.config else [])]
    platforms = parsed.platforms  # computed at each access
    listed += [child for child in parsed.manifests if child.digest not in platforms]
    return (PlannedBlob(str(each.digest), each.size) for each in listed if not each.is_foreign)


def _lease(context: Context, blob: ExecutionBlob, image_id: UUID) -> bool:
    """Lease a blob that the namespace has to the image; False if it must be transferred."""
    _, found = resolve.blob(context.namespace.name, blob.destination, blob.digest)
    if found is None or not _has_bytes(context, found):
        return False
    if not found.is_held:
        holders = images_with(found.id, organization_id=context.work.execution.organization_id)
        if not any(namespace == context.namespace.name for namespace, _ in holders):
            return False
    try:
        blobs.promise(blob_id=found.id, image_id=image_id, at_least=_HELD)
    except BlobNotFound:  # garbage collection has deleted it since
        return False
    return True


def _has_bytes(context: Context, found: resolve.BlobRecord) -> bool:
    """Whether the storage has the bytes; if not, the transfer repairs them."""
    try:
        return context.store.size(Key(found.storage_key)) == found.size
    except StorageError:
        return False


def _start(context: Context, image_id: UUID, claimed: Digest) -> UUID:
    session_id = ingest.start_blob(
        actor=context.actor, image_id=image_id, claimed=claimed, store=context.store
    )
    outcomes.save_upload(context.work, session_id.hex)
    return session_id


def _read(
    context: Context, blob: ExecutionBlob, claimed: Digest, progress: Progress, offset: int
) -> Iterator[bytes]:
    """The bytes of a blob at the source, from an offset on."""
    return progress.counted(context.registry.read_blob(blob.source, claimed, size=blob.size, start=offset))


def _store(context: Context, image_id: UUID, row: ExecutionManifest, *, tag: str) -> None:
    payload = row.payload if row.payload is not None else content.payload_of(image_id, row.digest)
    if payload is None:
        raise CannotReplicate("it was deleted from the image while it was replicated")
    tags = (tag,) if tag else ()
    verified = ingest.verify_payload(bytes(payload), Digest.parse(row.digest))
    parsed = parse_manifest(bytes(payload), row.media_type)
    try:
        ingest.store_manifest(verified, parsed, actor=context.actor, image_id=image_id, tag_names=tags)
    except MissingContent as error:
        platforms = parsed.platforms  # computed at each access
        manifests = [digest for digest in error.platforms if Digest.parse(digest) in platforms]
        if manifests:
            raise CannotReplicate(
                f"the index {row.digest} lists manifests that the source does not have"
                f" ({', '.join(manifests)}); `manage.py sparse_indexes` makes the namespace accept it"
            ) from error
        raise LostContent("blobs were deleted before their manifest was stored", error.platforms) from error
