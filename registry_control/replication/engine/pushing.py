"""Copies images of the registry to a target: blobs first, then manifests, children before indexes."""

import json
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Final

from registry_control.catalog.models import Image
from registry_control.catalog.selectors.content import missing_children
from registry_control.catalog.selectors.holders import StoredBlob
from registry_control.catalog.selectors.linked import blob_of_image
from registry_control.replication.engine import content, outcomes
from registry_control.replication.engine.keeper import Interrupted
from registry_control.replication.engine.work import (
    LONGEST_TURN,
    TURN,
    CannotReplicate,
    Context,
    ImagePlan,
    LostContent,
    Progress,
    count_completed,
    planned_manifests,
)
from registry_control.replication.models import ExecutionBlob, ExecutionImage, ExecutionManifest, TargetBlob
from registry_data.client.errors import ContentMismatch, RemoteRefused, RemoteUnavailable
from registry_data.client.uploads import RemoteUpload
from registry_data.oci.digest import Digest
from registry_data.storage.base import Key, NotStored

_WHOLE: Final = 1024 * 1024  # bytes up to which a blob is sent with the request that completes the upload
_FIRST_CHUNK: Final = 64 * 1024 * 1024  # bytes
_SHORTEST_CHUNK: Final = 1024 * 1024
_LONGEST_CHUNK: Final = 512 * 1024 * 1024
_CHUNK_TIME: Final = 10.0  # seconds that a chunk should take: then others may go first
_PIECE: Final = 64 * 1024  # bytes between two checks whether the transfer was cancelled
_LACKS_CONTENT: Final = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})


def plan(context: Context, image: ExecutionImage) -> None:
    """Insert the rows of an image's manifests and blobs.

    Raises:
        CannotReplicate: the image or its tag was deleted.
    """
    stored = _image(context, image)
    root = content.find_root(stored, image.reference)
    if root is None:
        raise CannotReplicate("it was deleted before it was replicated")
    rows = ImagePlan(context, image)
    for manifest in content.walk(stored, root):
        own = "" if manifest.tag == image.reference else manifest.tag
        rows.add(manifest.node, media_type=manifest.media_type, payload=None, tag=own, blobs=manifest.blobs)
    rows.finish(root.digest)


def copy_blob(context: Context, blob: ExecutionBlob) -> None:
    """Bring a blob to the target's repository: it may be there, can be mounted, or is sent.

    Raises:
        CannotReplicate: the blob was deleted from the image, or its bytes are lost.
        ContentMismatch: the target has other content afterwards.
    """
    digest = Digest.parse(blob.digest)
    if _is_there(context, blob, digest):
        count_completed(context, blob)
    elif not _mount(context, blob, digest):
        _send(context, blob, digest)
        if context.registry.blob_size(blob.destination, digest) != blob.size:
            raise ContentMismatch(
                f"{context.target.name} does not have the {blob.size} bytes of {digest} that were sent to it"
            )
    outcomes.remember(context.target.pk, blob.digest, blob.destination)


def copy_manifests(context: Context, image: ExecutionImage) -> None:
    """Bring the manifests of an image to the target, whose blobs are there, and set its tag at the end.

    Raises:
        CannotReplicate: a manifest was deleted from the image.
        LostContent: the target refuses a manifest because it lacks content.
    """
    stored = _image(context, image)
    listed: dict[str, set[str]] = {}
    for row in planned_manifests(image):
        context.check()
        if not _has_manifest(context, image, row, listed):
            _put(context, stored, image, row, reference=row.digest)
        if row.tag:
            _tag(context, stored, image, row, row.tag)
    if ":" not in image.reference:
        root = ExecutionManifest.objects.get(image=image, is_root=True)
        _tag(context, stored, image, root, image.reference)


def _image(context: Context, image: ExecutionImage) -> Image:
    name = image.source.partition("/")[2]
    stored = content.find_image(context.namespace.pk, name)
    if stored is None:
        raise CannotReplicate("the image was deleted while it was replicated")
    return stored


def _is_there(context: Context, blob: ExecutionBlob, digest: Digest) -> bool:
    size = context.registry.blob_size(blob.destination, digest)
    if size is not None and size != blob.size:
        raise CannotReplicate(f"the target has {size} bytes under this digest instead of {blob.size}")
    return size is not None


def _mount(context: Context, blob: ExecutionBlob, digest: Digest) -> bool:
    seen = TargetBlob.objects.filter(target=context.target, digest=blob.digest).first()
    if seen is None or seen.repository == blob.destination:
        return False
    if (
        context.registry.mount_blob(blob.destination, digest, source=seen.repository)
        and context.registry.blob_size(blob.destination, digest) == blob.size
    ):
        return True
    outcomes.forget(context.target.pk, blob.digest)
    return False


def _send(context: Context, blob: ExecutionBlob, digest: Digest) -> None:
    stored = content.find_image(context.namespace.pk, blob.source.partition("/")[2])
    source = None if stored is None else blob_of_image(stored.pk, blob.digest)
    if source is None:
        raise CannotReplicate("it was deleted from the image, or its content is damaged or missing")
    upload = _resumed(context, blob) or _started(context, blob)
    progress = Progress(context, offset=upload.offset, turn=LONGEST_TURN)
    read = partial(_read, context, source, progress)
    if upload.offset == 0 and blob.size <= _WHOLE:
        upload.finish(digest, b"".join(read(0, blob.size)))
    else:
        _send_chunks(context, blob, source, upload, progress)
        upload.finish(digest)
    progress.move_to(blob.size)
    progress.save()
    outcomes.save_upload(context.work, "")


def _send_chunks(
    context: Context, blob: ExecutionBlob, source: StoredBlob, upload: RemoteUpload, progress: Progress
) -> None:
    """Send the rest in chunks, after each of which another worker could continue.

    A new session gets the first 64 MiB in one request, as docker sends a layer; then the rate is known, and a
    chunk takes about ten seconds. A chunk that takes more than a minute is interrupted if others wait: how
    much of it the target keeps is up to the target, but the chunks of the next turn are shorter.
    """
    length = int(json.loads(blob.upload or "{}").get("chunk", _FIRST_CHUNK))
    while upload.offset < blob.size:
        start, began = upload.offset, monotonic()
        size = min(max(length, upload.minimum_chunk), blob.size - start)
        try:
            upload.append(partial(_read, context, source, progress, start, start + size), size)
        except Interrupted:
            _save(context, upload, chunk=_chunk(progress.offset - start, monotonic() - began))
            raise
        if upload.offset != start + size:
            _save(context, upload, chunk=length)
            raise RemoteUnavailable(
                f"{context.target.name} is at byte {upload.offset} of {blob.digest} instead of {start + size}"
            )
        length = _chunk(upload.offset - start, monotonic() - began)
        _save(context, upload, chunk=length)
        progress.move_to(upload.offset)
        if upload.offset < blob.size:
            progress.give_way(after=TURN)


def _chunk(sent: int, seconds: float) -> int:
    """The length of a chunk that takes ten seconds at the rate of the last one."""
    return int(min(max(sent / max(seconds, 0.001) * _CHUNK_TIME, _SHORTEST_CHUNK), _LONGEST_CHUNK))


def _save(context: Context, upload: RemoteUpload, *, chunk: int = _FIRST_CHUNK) -> None:
    """Save what the next turn needs, which may be in another process."""
    outcomes.save_upload(context.work, json.dumps({"state": upload.state, "chunk": chunk}))


def _resumed(context: Context, blob: ExecutionBlob) -> RemoteUpload | None:
    """The upload that an earlier attempt began, if the target still knows it."""
    if not blob.upload:
        return None
    upload = context.registry.resume_upload(json.loads(blob.upload)["state"])
    offset = upload.status()
    return upload if offset is not None and offset <= blob.size else None


def _started(context: Context, blob: ExecutionBlob) -> RemoteUpload:
    upload = context.registry.start_upload(blob.destination)
    _save(context, upload)
    return upload


def _read(context: Context, source: StoredBlob, progress: Progress, start: int, stop: int) -> Iterator[bytes]:
    """The bytes of a stored blob in small pieces: a cancellation acts at once on a slow connection, too."""
    try:
        pieces = context.store.read(Key(source.storage_key), start=start, stop=stop)
    except NotStored as error:
        raise CannotReplicate("its bytes are missing in the storage of the registry") from error
    progress.move_to(start)
    for piece in pieces:
        view = memoryview(piece)
        yield from progress.counted(bytes(view[at : at + _PIECE]) for at in range(0, len(view), _PIECE))


def _has_manifest(
    context: Context, image: ExecutionImage, row: ExecutionManifest, listed: dict[str, set[str]]
) -> bool:
    """Whether the target has a manifest, and lists it as a referrer if it is one.

    An older registry lists referrers by a tag, which is set after the manifest was stored: a worker that was
    killed in between leaves one that is not listed.
    """
    if context.registry.head_manifest(image.destination, row.digest) is None:
        return False
    if not row.subject_digest:
        return True
    if row.subject_digest not in listed:
        found = context.registry.referrers(image.destination, Digest.parse(row.subject_digest))
        listed[row.subject_digest] = {str(entry.digest) for entry in found}
    return row.digest in listed[row.subject_digest]


def _tag(context: Context, stored: Image, image: ExecutionImage, row: ExecutionManifest, tag: str) -> None:
    found = context.registry.head_manifest(image.destination, tag)
    if found is None or str(found.digest) != row.digest:
        _put(context, stored, image, row, reference=tag)


def _put(
    context: Context, stored: Image, image: ExecutionImage, row: ExecutionManifest, *, reference: str
) -> None:
    payload = content.payload_of(stored.pk, row.digest)
    if payload is None:
        raise CannotReplicate(f"the manifest {row.digest} was deleted while the image was replicated")
    try:
        context.registry.put_manifest(
            image.destination, reference, media_type=row.media_type, payload=payload
        )
    except RemoteRefused as error:
        if error.code not in _LACKS_CONTENT:
            raise
        if absent := missing_children(stored.pk, row.digest):
            digests = ", ".join(digest for digest, _ in absent)
            raise CannotReplicate(
                f"{error}; the index {row.digest} lists manifests that the registry itself lacks: {digests}"
            ) from error
        raise LostContent(str(error)) from error
