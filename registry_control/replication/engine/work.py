"""What the steps of an execution have in common: their context, errors, and the progress of a transfer."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final
from uuid import UUID

from django.db import transaction

from registry_control.audit.services import Actor
from registry_control.common.pace import ProcessorShare
from registry_control.db.functions import DatabaseNow
from registry_control.namespaces.models import Namespace
from registry_control.replication.engine import claims, outcomes
from registry_control.replication.engine.claims import Work
from registry_control.replication.engine.keeper import Interrupted
from registry_control.replication.models import (
    Execution,
    ExecutionBlob,
    ExecutionImage,
    ExecutionImageBlob,
    ExecutionManifest,
    Rule,
    Target,
)
from registry_control.replication.policy import Node, copy_order
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.document import INTEGER_LIMIT
from registry_data.storage.base import BlobStore

_SAVE: Final = 1.0  # seconds between two updates of the progress
_BATCH: Final = 500  # rows of one transaction
TURN: Final = 15.0
"""Seconds after which a transfer lets other organizations go first, if they wait, where it can continue."""

LONGEST_TURN: Final = 60.0
"""Seconds after which it does so even if bytes must be sent again."""

_LOOK: Final = 5.0  # seconds between two looks whether others wait
_processor: Final = ProcessorShare()


class CannotReplicate(Exception):
    """An image or blob cannot be replicated, now or later; the text says why."""


class LostContent(Exception):
    """The destination lacks blobs that it had, so that it refuses a manifest. The digests may be unknown."""

    def __init__(self, sentence: str, digests: Iterable[str] | None = None) -> None:
        super().__init__(sentence)
        self.digests = None if digests is None else tuple(digests)


@dataclass(frozen=True, slots=True)
class Context:
    """A claimed piece of work with the rows and connections that it needs."""

    work: Work
    rule: Rule
    namespace: Namespace
    target: Target
    registry: RemoteRegistry
    store: BlobStore
    actor: Actor

    def check(self) -> None:
        """Give way to clients (ADR 66), and raise Interrupted if the work must stop."""
        _processor.give_way()
        self.work.hold.check()


@dataclass(frozen=True, slots=True)
class PlannedBlob:
    """A blob that an image needs."""

    digest: str
    size: int  # bytes


class Progress:
    """Counts the bytes of one transfer, saves the sum about once a second, and ends its turn."""

    def __init__(self, context: Context, *, offset: int, turn: float) -> None:
        """Begin the turn of a transfer.

        Args:
            context: its work.
            offset: how many bytes are at the destination already.
            turn: seconds after which `counted` lets other organizations go first.
        """
        self._context = context
        self.offset = offset
        self._began = self._saved_at = time.monotonic()
        self._looked_at = self._began - _LOOK
        self._turn = turn
        outcomes.count_sent(context.work, offset)

    def counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Pass pieces on, counting them; raises Interrupted when the work must stop."""
        for piece in pieces:
            self._context.check()
            yield piece
            self.move_to(self.offset + len(piece))
            self.give_way(after=self._turn)

    def move_to(self, offset: int) -> None:
        """The destination has this many bytes."""
        self.offset = offset
        if time.monotonic() - self._saved_at >= _SAVE:
            self.save()

    def save(self) -> None:
        """Save the present number."""
        outcomes.count_sent(self._context.work, self.offset)
        self._saved_at = time.monotonic()

    def give_way(self, *, after: float) -> None:
        """Raise Interrupted if this transfer has taken so many seconds and other organizations wait."""
        moment = time.monotonic()
        if moment - self._began < after or moment - self._looked_at < _LOOK:
            return
        self._looked_at = moment
        if claims.others_wait(self._context.work.execution.organization_id):
            raise Interrupted


def count_completed(context: Context, blob: ExecutionBlob) -> None:
    """Count a blob as sent that is there because its upload was completed by a worker that died then."""
    if blob.upload:
        outcomes.count_sent(context.work, blob.size)


class ImagePlan:
    """Inserts the rows of one image: its manifests in the order of the copy, and its blobs.

    Rows are inserted as manifests are found, so that memory does not grow with their payloads. A plan that is
    interrupted starts from the beginning; rows of blobs that exist stay. Every transaction holds the claim: a
    thread that has lost it adds nothing to the plan of its successor.
    """

    def __init__(self, context: Context, image: ExecutionImage) -> None:
        self._context = context
        self._image = image
        self._nodes: dict[str, Node] = {}
        self._rows: dict[str, int] = {}
        with self._claimed():
            ExecutionManifest.objects.filter(image=image).delete()
            ExecutionImageBlob.objects.filter(image=image).delete()

    def __contains__(self, digest: str) -> bool:
        return digest in self._nodes

    def add(
        self,
        node: Node,
        *,
        media_type: str,
        payload: bytes | None,
        tag: str = "",
        blobs: Iterable[PlannedBlob] = (),
    ) -> None:
        """Add a manifest; `payload` None: the registry has it, and its blobs are given only if it is sent."""
        self._context.check()
        with self._claimed():
            row = ExecutionManifest.objects.create(
                image=self._image,
                position=-len(self._nodes) - 1,  # replaced by `finish`
                digest=node.digest,
                media_type=media_type,
                subject_digest=node.subject,
                tag=tag,
                payload=payload,
            )
        self._nodes[node.digest], self._rows[node.digest] = node, row.pk
        needed = iter({blob.digest: blob for blob in blobs}.values())
        while batch := list(islice(needed, _BATCH)):
            with self._claimed():
                _insert_blobs(self._context.work.execution.pk, self._image, batch)

    def finish(self, root: str) -> None:
        """Number the manifests, children and subjects first; `root` is the digest of the image itself."""
        numbered = enumerate(copy_order(self._nodes))
        while batch := list(islice(numbered, _BATCH)):
            with self._claimed():
                for position, digest in batch:
                    row = ExecutionManifest.objects.filter(pk=self._rows[digest])
                    row.update(position=position, is_root=digest == root)

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        with transaction.atomic():
            outcomes.require_claim(self._context.work)
            yield


def planned_manifests(image: ExecutionImage) -> Iterator[ExecutionManifest]:
    """The manifests of an image in the order of the copy, one at a time: each may have 4 MiB."""
    rows = ExecutionManifest.objects.filter(image=image)
    for pk in list(rows.order_by("position").values_list("pk", flat=True)):
        yield rows.get(pk=pk)


def _insert_blobs(execution_id: UUID, image: ExecutionImage, blobs: list[PlannedBlob]) -> None:
    """Insert blobs that an image needs; those that other images of the execution need exist already.

    Raises:
        CannotReplicate: the manifests claim an impossible number of bytes.
    """
    # The execution's row is locked, so that of two images one inserts a blob and counts its bytes.
    execution = Execution.objects.select_for_update().get(pk=execution_id)
    known = ExecutionBlob.objects.filter(execution=execution, destination=image.destination)
    digests = [blob.digest for blob in blobs]
    existing = set(known.filter(digest__in=digests).values_list("digest", flat=True))
    new = [blob for blob in blobs if blob.digest not in existing]
    total = execution.bytes_total + sum(blob.size for blob in new)
    if total > INTEGER_LIMIT:
        raise CannotReplicate("its manifests claim more bytes than any registry has")
    ExecutionBlob.objects.bulk_create(
        ExecutionBlob(
            execution=execution,
            source=image.source,
            destination=image.destination,
            digest=blob.digest,
            size=blob.size,
            next_attempt_at=DatabaseNow(),
        )
        for blob in new
    )
    ids = known.filter(digest__in=digests).values_list("pk", flat=True)
    ExecutionImageBlob.objects.bulk_create(
        (ExecutionImageBlob(image=image, blob_id=pk) for pk in ids), ignore_conflicts=True
    )
    Execution.objects.filter(pk=execution_id).update(bytes_total=total)
