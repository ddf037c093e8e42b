"""Resolves the names of a request to rows, and reads the facts for its authorization, in one query.

Conditions on status and state are literals, not parameters: only then does SQLite use the partial unique
indexes that have the same condition.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from registry_control.access.policy import NamespaceFacts, Visibility
from registry_control.access.services import RepositoryFacts
from registry_control.catalog.models import live_sql
from registry_control.common.changes import image_scope, namespace_scope
from registry_control.common.models import Status, not_deleting_sql
from registry_control.db.sql import Rows, optional_time, optional_uuid, row, time_from_db, uuid_from_db

_REPOSITORY_COLUMNS: Final = """
SELECT n.id, n.project_id, p.organization_id, COALESCE(n.owner_user_id, n.owner_application_id),
       n.is_public, n.status, i.id, i.visibility, i.status
"""
_REPOSITORY: Final = f"""
FROM namespaces_namespace n
JOIN identity_project p ON p.id = n.project_id
LEFT JOIN catalog_image i ON i.namespace_id = n.id AND i.name = %s AND {not_deleting_sql("i")}
"""
_NAMESPACE: Final = f" WHERE n.name = %s AND {not_deleting_sql('n')}"
_MANIFEST_COLUMNS: Final = ", m.id, m.digest, m.media_type, m.size, "
_BLOB_COLUMNS: Final = """,
       b.id, b.size, b.storage_key, l.expires_at, statement_timestamp(),
       EXISTS (SELECT 1 FROM catalog_bloblink k WHERE k.image_id = i.id AND k.blob_id = b.id)
"""
_BY_NAME: Final = _REPOSITORY_COLUMNS + _REPOSITORY + _NAMESPACE
_MANIFEST_BY_TAG: Final = (
    _REPOSITORY_COLUMNS
    + _MANIFEST_COLUMNS
    + "t.id"
    + _REPOSITORY
    + f"""
LEFT JOIN catalog_tag t ON t.image_id = i.id AND t.name = %s AND {not_deleting_sql("t")}
LEFT JOIN catalog_manifest m ON m.id = t.manifest_id
"""
    + _NAMESPACE
)
_MANIFEST_BY_DIGEST: Final = (
    _REPOSITORY_COLUMNS
    + _MANIFEST_COLUMNS
    + "NULL"
    + _REPOSITORY
    + "LEFT JOIN catalog_manifest m ON m.image_id = i.id AND m.digest = %s"
    + _NAMESPACE
)
_BLOB: Final = (
    _REPOSITORY_COLUMNS
    + _BLOB_COLUMNS
    + _REPOSITORY
    + f"""
LEFT JOIN catalog_blob b ON b.digest = %s AND {live_sql("b")}
LEFT JOIN catalog_bloblease l ON l.image_id = i.id AND l.blob_id = b.id
"""
    + _NAMESPACE
)


ANSWER_TIME: Final = timedelta(seconds=5)
"""Added to every lease: the time from the check of a lease until the response that promises the blob."""


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """A resolved repository name; `image_id` is None if there is no such image (yet)."""

    facts: RepositoryFacts
    namespace_id: UUID | None
    image_id: UUID | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest without its bytes; `tag_id` is that of the tag it was found by, or None."""

    id: int
    digest: str
    media_type: str
    size: int  # bytes
    tag_id: UUID | None


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A live blob, and whether the image has a link to it or a lease on it."""

    id: int
    size: int  # bytes
    storage_key: str
    leased_until: datetime | None
    linked: bool
    read_at: datetime
    """The time of the database when the blob was read. Leases are compared with no other clock (ADR 66)."""

    def needs_lease(self, lease: timedelta) -> bool:
        """Whether a response that promises the blob must renew its lease of this duration (invariant 2).

        A promise holds for three quarters of the lease, so a HEAD writes nothing in the first quarter.
        """
        if self.linked:
            return False  # the deletion of the manifest leases the blob
        return self.leased_until is None or self.leased_until - self.read_at < lease * 0.75 + ANSWER_TIME

    @property
    def is_held(self) -> bool:
        """Whether the image has the blob: by a link, or by a lease that has not expired."""
        return self.linked or (self.leased_until is not None and self.leased_until > self.read_at)


@dataclass(slots=True)
class _RepositoryRow:
    """A row with `_REPOSITORY_COLUMNS`, as the database returns it; the image's columns are nullable."""

    namespace_id: UUID | str
    project_id: UUID | str
    organization_id: UUID | str
    owner_id: UUID | str | None
    is_public: bool
    namespace_status: str
    image_id: UUID | str | None
    visibility: str | None
    image_status: str | None

    def record(self) -> RepositoryRecord:
        """Convert the row."""
        namespace = NamespaceFacts(
            project_id=uuid_from_db(self.project_id),
            organization_id=uuid_from_db(self.organization_id),
            owner_id=optional_uuid(self.owner_id),
            is_public=bool(self.is_public),
        )
        visibility = None if self.visibility is None else Visibility(self.visibility)
        return RepositoryRecord(
            facts=RepositoryFacts(namespace, visibility),
            namespace_id=uuid_from_db(self.namespace_id),
            image_id=optional_uuid(self.image_id),
            read_only=Status.LOCKED in (self.namespace_status, self.image_status),
        )

    def scopes(self) -> tuple[str, ...] | None:
        """The scopes of the row; None without an image, because creating one records no change."""
        if self.image_id is None:
            return None
        return namespace_scope(self.namespace_id), image_scope(self.image_id)


@dataclass(slots=True)
class _ManifestRow(_RepositoryRow):
    """A row with `_MANIFEST_COLUMNS` and the id of a tag too, which are NULL together or but for the tag."""

    manifest_id: int | None
    digest: str
    media_type: str
    size: int
    tag_id: UUID | str | None

    def manifest(self) -> ManifestRecord | None:
        """Convert the manifest's columns; None if the image has no such manifest."""
        if self.manifest_id is None:
            return None
        tag_id = optional_uuid(self.tag_id)
        return ManifestRecord(self.manifest_id, self.digest, self.media_type, self.size, tag_id)


@dataclass(slots=True)
class _BlobRow(_RepositoryRow):
    """A row with `_BLOB_COLUMNS` too; without a live blob, those of the blob are NULL."""

    blob_id: int | None
    size: int
    storage_key: str
    leased_until: datetime | str | None
    read_at: datetime | str
    is_linked: bool

    def blob(self) -> BlobRecord | None:
        """Convert the blob's columns; None if the registry has no such live blob."""
        if self.blob_id is None:
            return None
        leased_until = optional_time(self.leased_until)
        return BlobRecord(
            self.blob_id,
            self.size,
            self.storage_key,
            leased_until,
            bool(self.is_linked),
            time_from_db(self.read_at),
        )


UNKNOWN: Final = RepositoryRecord(RepositoryFacts(None, None), None, None, read_only=False)


def repository(namespace: str, image: str) -> RepositoryRecord:
    """Resolve a repository name; `UNKNOWN` if its namespace does not exist."""
    found = row(_BY_NAME, [image, namespace], depends_on=_scopes_of_repository)
    return UNKNOWN if found is None else _RepositoryRow(*found).record()


def repository_facts(name: str) -> RepositoryFacts:
    """The facts of a full repository name, for the token service."""
    namespace, _, image = name.partition("/")
    return repository(namespace, image).facts


def manifest_by_tag(namespace: str, image: str, tag: str) -> tuple[RepositoryRecord, ManifestRecord | None]:
    """Resolve a repository name and the manifest of a tag in it."""
    return _with_manifest(row(_MANIFEST_BY_TAG, [image, tag, namespace], depends_on=_scopes_of_manifest))


def manifest_by_digest(
    namespace: str, image: str, digest: str
) -> tuple[RepositoryRecord, ManifestRecord | None]:
    """Resolve a repository name and the manifest of a digest in it."""
    found = row(_MANIFEST_BY_DIGEST, [image, digest, namespace], depends_on=_scopes_of_manifest)
    return _with_manifest(found)


def blob(namespace: str, image: str, digest: str) -> tuple[RepositoryRecord, BlobRecord | None]:
    """Resolve a repository name and a live blob, also one of other images only: see `BlobRecord.is_held`."""
    found = row(_BLOB, [image, digest, namespace], depends_on=_scopes_of_linked_blob)
    if found is None:
        return UNKNOWN, None
    resolved = _BlobRow(*found)
    return resolved.record(), resolved.blob()


def _with_manifest(found: tuple[Any, ...] | None) -> tuple[RepositoryRecord, ManifestRecord | None]:
    if found is None:
        return UNKNOWN, None
    resolved = _ManifestRow(*found)
    return resolved.record(), resolved.manifest()


def _scopes_of_repository(found: Rows) -> tuple[str, ...] | None:
    return _RepositoryRow(*found[0]).scopes() if found else None


def _scopes_of_manifest(found: Rows) -> tuple[str, ...] | None:
    return _ManifestRow(*found[0]).scopes() if found else None


def _scopes_of_linked_blob(found: Rows) -> tuple[str, ...] | None:
    """None without a link: a lease is written, and expires, without a record in the change log."""
    if not found:
        return None
    resolved = _BlobRow(*found[0])
    return resolved.scopes() if resolved.is_linked else None
