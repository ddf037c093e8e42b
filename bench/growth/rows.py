"""The rows of a registry of a given size, as pushes would have created them.

A repository is made of blocks of ten manifests: eight images, an index of the first two of them, and a
signature of the index. Images share base layers with the whole registry and one layer with their repository;
all signatures have the same empty config. So some blobs belong to one manifest, and some to most.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Final, NamedTuple
from uuid import UUID

from bench.growth import tables
from bench.growth.tables import GIANT, Batch, DatabaseId, Form, Size, Table, Tenant, giant_tag

_BLOCK: Final = 10  # manifests
_BATCH: Final = 1000  # blocks
_REPOSITORIES: Final = 100  # in a namespace
_BASE_LAYERS: Final = 1000
_BUSY: Final = 10  # one repository in this number has recent pushes
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_EMPTY: Final = "application/vnd.oci.empty.v1+json"
_SIGNATURE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"


def repository_name(number: int) -> tuple[str, str]:
    """Namespace and name of a repository, counted from 0 without the giant. It has the tag `latest`."""
    return f"growth-{number // _REPOSITORIES}", f"app-{number}"


def shared_layer(namespace: str, name: str) -> bytes:
    """The content of the layer that all images of a repository share; it is not stored."""
    return f"layer of {namespace}/{name}".encode()


class _Named(NamedTuple):
    """A blob or a manifest."""

    id: int
    digest: str
    size: int  # bytes


@dataclass(slots=True)
class _Repository:
    uuid: UUID
    id: DatabaseId  # the same in the type of the database
    namespace_id: DatabaseId
    namespace: str
    name: str
    layer: _Named
    blobs: dict[int, int] = field(default_factory=dict)  # sizes by id
    reachable: set[int] = field(default_factory=set)  # blobs of manifests that a tag reaches
    tags: int = 0


class Growth:
    """Creates the rows of one registry; numeric ids continue after those in `taken`."""

    def __init__(self, tenant: Tenant, form: Form, taken: Mapping[Table, int], *, until: datetime) -> None:
        """The times of the pushes are evenly distributed over the 30 days before `until`."""
        self._tenant = tenant
        self._form = form
        self._ids = {table: count(taken[table] + 1) for table in tables.NUMBERED}
        self._random = random.Random(2026)
        self._until = until
        self._moment = until - timedelta(days=30)
        self._batch: Batch = {table: [] for table in tables.TABLES}

    def batches(self, size: Size) -> Iterator[Batch]:
        """All rows, in batches that fit into memory; a row may reference one of a later batch."""
        self._step = timedelta(days=30) / (size.manifests + 1)
        self._bases = [self._blob(b"base %d" % number) for number in range(_BASE_LAYERS)]
        self._empty = self._blob(b"{}")
        giant_blocks = -(-size.giant_tags // _BLOCK)
        others = -(-size.manifests // _BLOCK) - giant_blocks
        namespaces = [self._namespace(number) for number in range(1 + others // _REPOSITORIES)]
        yield from self._giant(namespaces[0], giant_blocks)
        for number in range(others):
            self._ordinary(number, namespaces[number // _REPOSITORIES])
            if number % _BATCH == _BATCH - 1:
                yield self._next_batch()
        yield self._next_batch()

    def _giant(self, namespace_id: DatabaseId, blocks: int) -> Iterator[Batch]:
        repository = self._repository(namespace_id, *GIANT)
        numbers = count()
        for block in range(blocks):
            for manifest in self._block(repository, untagged=range(0)):
                self._tag(repository, giant_tag(next(numbers)), manifest)
            if block % _BATCH == _BATCH - 1:
                yield self._next_batch()
        self._image(repository)

    def _ordinary(self, number: int, namespace_id: DatabaseId) -> None:
        repository = self._repository(namespace_id, *repository_name(number))
        # The index has the first two as its children; the ones after them have no tag.
        manifests = self._block(repository, untagged=range(2, _BLOCK - 4))
        for name, manifest in zip(("v1", "v2", "latest"), manifests[-4:-1], strict=True):
            self._tag(repository, name, manifest)
        self._image(repository)
        if number % _BUSY == 0:
            self._just_pushed(repository)

    def _next_batch(self) -> Batch:
        batch, self._batch = self._batch, {table: [] for table in tables.TABLES}
        return batch

    def _block(self, repository: _Repository, untagged: range) -> list[_Named]:
        images = [
            self._image_manifest(repository, is_reachable=number not in untagged)
            for number in range(_BLOCK - 2)
        ]
        index = self._index(repository, images[:2])
        return [*images, index, self._signature(repository, index)]

    def _image_manifest(self, repository: _Repository, *, is_reachable: bool) -> _Named:
        number = next(self._ids[tables.MANIFEST])
        config, own = self._blob(b"config %d" % number), self._blob(b"layer %d" % number)
        base = self._bases[(repository.layer.id + number % 7) % _BASE_LAYERS]
        layers = (base, repository.layer, own)
        payload = (
            f'{{"schemaVersion":2,"mediaType":"{_MANIFEST}","config":{_descriptor(_CONFIG, config)},'
            f'"layers":[{_descriptors(_LAYER, layers)}]}}'
        )
        made = self._manifest(repository, number, _MANIFEST, payload, _CONFIG, is_reachable=is_reachable)
        self._link(repository, made, (config, *layers), is_reachable=is_reachable)
        return made

    def _index(self, repository: _Repository, children: list[_Named]) -> _Named:
        payload = (
            f'{{"schemaVersion":2,"mediaType":"{_INDEX}","manifests":[{_descriptors(_MANIFEST, children)}]}}'
        )
        made = self._manifest(repository, next(self._ids[tables.MANIFEST]), _INDEX, payload)
        self._batch[tables.CHILD] += [
            (next(self._ids[tables.CHILD]), made.id, child.id) for child in children
        ]
        return made

    def _signature(self, repository: _Repository, subject: _Named) -> _Named:
        number = next(self._ids[tables.MANIFEST])
        layer = self._blob(b"signature %d" % number)
        payload = (
            f'{{"schemaVersion":2,"mediaType":"{_MANIFEST}","artifactType":"{_SIGNATURE}",'
            f'"config":{_descriptor(_EMPTY, self._empty)},"layers":[{_descriptor(_LAYER, layer)}],'
            f'"subject":{_descriptor(_INDEX, subject)}}}'
        )
        made = self._manifest(repository, number, _MANIFEST, payload, _SIGNATURE, subject.digest)
        self._link(repository, made, (self._empty, layer), is_reachable=True)
        return made

    def _manifest(
        self,
        repository: _Repository,
        number: int,
        media_type: str,
        text: str,
        artifact_type: str = "",
        subject: str = "",
        *,
        is_reachable: bool = True,
    ) -> _Named:
        self._moment += self._step
        payload = text.encode()
        made = _Named(number, _digest(payload), len(payload))
        self._batch[tables.MANIFEST].append(
            (
                *(number, repository.id, made.digest, media_type, artifact_type, subject, payload),
                *(made.size, is_reachable, self._form.time(self._moment)),
            )
        )
        if subject:
            self._referrer(repository, made, artifact_type, subject)
        self._audit("manifest.push", repository, f'{{"digest": "{made.digest}"}}')
        return made

    def _referrer(self, repository: _Repository, made: _Named, artifact_type: str, subject: str) -> None:
        descriptor = json.dumps(
            {
                "mediaType": _MANIFEST,
                "digest": made.digest,
                "size": made.size,
                "artifactType": artifact_type,
            }
        ).encode()
        row = (made.id, repository.id, subject, artifact_type, len(descriptor), descriptor)
        self._batch[tables.REFERRER].append(row)

    def _link(
        self, repository: _Repository, manifest: _Named, blobs: Iterable[_Named], *, is_reachable: bool
    ) -> None:
        for blob in blobs:
            repository.blobs[blob.id] = blob.size
            if is_reachable:
                repository.reachable.add(blob.id)
            row = (next(self._ids[tables.LINK]), repository.id, manifest.id, blob.id, is_reachable)
            self._batch[tables.LINK].append(row)

    def _blob(self, content: bytes) -> _Named:
        number, digest = next(self._ids[tables.BLOB]), _digest(content)
        encoded, moment = digest.removeprefix("sha256:"), self._form.time(self._moment)
        key = f"blobs/sha256/{encoded[:2]}/{encoded}.{number:032x}"
        self._batch[tables.BLOB].append((number, digest, len(content), key, moment))
        return _Named(number, digest, len(content))

    def _tag(self, repository: _Repository, name: str, manifest: _Named) -> None:
        repository.tags += 1
        moment = self._form.time(self._moment)
        row = (self._form.id(self._uuid()), repository.id, name, manifest.id, moment, moment)
        self._batch[tables.TAG].append(row)
        self._audit("tag.set", repository, f'{{"tag": "{name}", "digest": "{manifest.digest}"}}')

    def _namespace(self, number: int) -> DatabaseId:
        id_, moment = self._form.id(self._uuid()), self._form.time(self._moment)
        tenant = self._tenant
        project, owner = self._form.id(tenant.project_id), self._form.id(tenant.application_id)
        row = (id_, f"growth-{number}", project, owner, number % 2 == 1, moment, moment)
        self._batch[tables.NAMESPACE].append(row)
        return id_

    def _repository(self, namespace_id: DatabaseId, namespace: str, name: str) -> _Repository:
        uuid = self._uuid()
        layer = self._blob(shared_layer(namespace, name))
        repository = _Repository(uuid, self._form.id(uuid), namespace_id, namespace, name, layer)
        self._audit("image.create", repository, "{}")
        return repository

    def _image(self, repository: _Repository) -> None:
        """The row of the image comes last, because it contains the sums."""
        moment = self._form.time(self._moment)
        size = sum(repository.blobs[blob] for blob in repository.reachable)
        untagged_size = sum(repository.blobs.values()) - size
        place = (repository.namespace_id, self._form.id(self._tenant.organization_id), repository.name)
        row = (repository.id, *place, size, untagged_size, repository.tags, moment, moment, moment)
        self._batch[tables.IMAGE].append(row)

    def _just_pushed(self, repository: _Repository) -> None:
        """Leases that have not expired, and an open upload."""
        expires = self._form.time(self._until + timedelta(hours=12))
        self._batch[tables.LEASE] += [
            (next(self._ids[tables.LEASE]), repository.id, blob, expires) for blob in repository.blobs
        ]
        pusher = self._form.id(self._tenant.application_id)
        row = (self._form.id(self._uuid()), repository.id, pusher, self._form.time(self._until), expires)
        self._batch[tables.SESSION].append(row)

    def _audit(self, verb: str, repository: _Repository, detail: str) -> None:
        tenant = self._tenant
        self._batch[tables.AUDIT].append(
            (
                next(self._ids[tables.AUDIT]),
                self._form.time(self._moment),
                self._form.id(tenant.organization_id),
                *("application", str(tenant.application_id), tenant.application_name, verb, "image"),
                *(str(repository.uuid), f"{repository.namespace}/{repository.name}", detail),
            )
        )

    def _uuid(self) -> UUID:
        """Random like those of the product, so that indexes have the same fill factor, but reproducible."""
        return UUID(int=self._random.getrandbits(128), version=4)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, what: _Named) -> str:
    return f'{{"mediaType":"{media_type}","digest":"{what.digest}","size":{what.size}}}'


def _descriptors(media_type: str, several: Iterable[_Named]) -> str:
    return ",".join(_descriptor(media_type, what) for what in several)
