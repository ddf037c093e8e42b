"""From a name in a request to what it stands for, together with the facts of the decision: one query.

The conditions on status and state stand in the text, not in parameters: only so does SQLite see that
the partial unique indexes answer them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from registry_control.access.policy import NamespaceFacts, Visibility
from registry_control.access.services import RepositoryFacts
from registry_control.common.changes import image_scope, namespace_scope
from registry_control.db.sql import Rows, optional_time, optional_uuid, row, uuid_from_db

_REPOSITORY_COLUMNS: Final = """
SELECT n.id, n.project_id, p.organization_id, COALESCE(n.owner_user_id, n.owner_application_id),
       n.is_public, n.status, i.id, i.visibility, i.status
"""
_REPOSITORY: Final = """
FROM namespaces_namespace n
JOIN identity_project p ON p.id = n.project_id
LEFT JOIN catalog_image i ON i.namespace_id = n.id AND i.name = %s AND NOT (i.status = 'deleting')
"""
_NAMESPACE: Final = " WHERE n.name = %s AND NOT (n.status = 'deleting')"
_MANIFEST_COLUMNS: Final = ", m.id, m.digest, m.media_type, m.size"
_BY_NAME: Final = _REPOSITORY_COLUMNS + _REPOSITORY + _NAMESPACE
_MANIFEST_BY_TAG: Final = (
    _REPOSITORY_COLUMNS
    + _MANIFEST_COLUMNS
    + _REPOSITORY
    + """
LEFT JOIN catalog_tag t ON t.image_id = i.id AND t.name = %s AND NOT (t.status = 'deleting')
LEFT JOIN catalog_manifest m ON m.id = t.manifest_id
"""
    + _NAMESPACE
)
_MANIFEST_BY_DIGEST: Final = (
    _REPOSITORY_COLUMNS
    + _MANIFEST_COLUMNS
    + _REPOSITORY
    + "LEFT JOIN catalog_manifest m ON m.image_id = i.id AND m.digest = %s"
    + _NAMESPACE
)
_BLOB: Final = (
    _REPOSITORY_COLUMNS
    + """, b.id, b.size, b.storage_key, l.expires_at,
       EXISTS (SELECT 1 FROM catalog_bloblink k WHERE k.image_id = i.id AND k.blob_id = b.id)
"""
    + _REPOSITORY
    + """
LEFT JOIN catalog_blob b ON b.digest = %s AND b.state = 'live'
LEFT JOIN catalog_bloblease l ON l.image_id = i.id AND l.blob_id = b.id
"""
    + _NAMESPACE
)


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """A repository name resolved; `image_id` is None when there is no such image (yet)."""

    facts: RepositoryFacts
    namespace_id: UUID | None
    image_id: UUID | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest without its bytes."""

    id: int
    digest: str
    media_type: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class BlobRecord:
    """A live blob, and why this image has it: a link, or a lease until then, or not at all."""

    id: int
    size: int  # bytes
    storage_key: str
    leased_until: datetime | None
    linked: bool

    def held_at(self, moment: datetime) -> bool:
        """Whether the image has the blob."""
        return self.linked or (self.leased_until is not None and self.leased_until > moment)


UNKNOWN: Final = RepositoryRecord(RepositoryFacts(None, None), None, None, read_only=False)


def repository(namespace: str, image: str) -> RepositoryRecord:
    """What a repository name stands for; `UNKNOWN` when not even its namespace is there."""
    return _record(row(_BY_NAME, [image, namespace], depends_on=_scopes))


def repository_facts(name: str) -> RepositoryFacts:
    """The facts of a full repository name, for the token service."""
    namespace, _, image = name.partition("/")
    return repository(namespace, image).facts


def manifest_by_tag(namespace: str, image: str, tag: str) -> tuple[RepositoryRecord, ManifestRecord | None]:
    """What a tag stands for."""
    return _with_manifest(row(_MANIFEST_BY_TAG, [image, tag, namespace], depends_on=_scopes))


def manifest_by_digest(
    namespace: str, image: str, digest: str
) -> tuple[RepositoryRecord, ManifestRecord | None]:
    """What a digest stands for in this image."""
    return _with_manifest(row(_MANIFEST_BY_DIGEST, [image, digest, namespace], depends_on=_scopes))


def blob(namespace: str, image: str, digest: str) -> tuple[RepositoryRecord, BlobRecord | None]:
    """A live blob, whether or not the image has it: see `BlobRecord.held_at`."""
    found = row(_BLOB, [image, digest, namespace], depends_on=_scopes_of_linked_blob)
    if found is None or found[9] is None:
        return _record(found), None
    id_, size, key, leased_until, linked = found[9:14]
    return _record(found), BlobRecord(id_, size, key, optional_time(leased_until), bool(linked))


def _scopes(found: Rows) -> tuple[str, ...] | None:
    """What a repository's row depends on; None without an image, since creating one records no change."""
    if not found or found[0][6] is None:
        return None
    return namespace_scope(found[0][0]), image_scope(found[0][6])


def _scopes_of_linked_blob(found: Rows) -> tuple[str, ...] | None:
    """None without a link: a lease is written, and expires, without a record in the change log."""
    return _scopes(found) if found and found[0][13] else None


def _with_manifest(found: tuple[Any, ...] | None) -> tuple[RepositoryRecord, ManifestRecord | None]:
    if found is None or found[9] is None:
        return _record(found), None
    return _record(found), ManifestRecord(*found[9:13])


def _record(found: tuple[Any, ...] | None) -> RepositoryRecord:
    if found is None:
        return UNKNOWN
    namespace = NamespaceFacts(
        project_id=uuid_from_db(found[1]),
        organization_id=uuid_from_db(found[2]),
        owner_id=optional_uuid(found[3]),
        is_public=bool(found[4]),
    )
    visibility = Visibility(found[7]) if found[6] is not None else None
    return RepositoryRecord(
        facts=RepositoryFacts(namespace, visibility),
        namespace_id=optional_uuid(found[0]),
        image_id=optional_uuid(found[6]),
        read_only="locked" in (found[5], found[8]),
    )
