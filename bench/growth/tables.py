"""The tables that grow, and the parameters of the rows that are generated."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID


class Table(NamedTuple):
    """A model and those of its columns that differ from row to row; the others have their default."""

    model: str
    columns: tuple[str, ...]


Row: TypeAlias = tuple[Any, ...]
DatabaseId: TypeAlias = UUID | str
Batch: TypeAlias = dict[Table, list[Row]]

NAMESPACE: Final = Table(
    "namespaces.Namespace",
    ("id", "name", "project_id", "owner_application_id", "is_public", "created_at", "updated_at"),
)
IMAGE: Final = Table(
    "catalog.Image",
    (
        *("id", "namespace_id", "organization_id", "name", "size", "untagged_size"),
        "tag_rows",
        *("pushed_at", "created_at", "updated_at"),
    ),
)
BLOB: Final = Table("catalog.Blob", ("id", "digest", "size", "storage_key", "created_at"))
MANIFEST: Final = Table(
    "catalog.Manifest",
    (
        "id",
        "image_id",
        "digest",
        "media_type",
        "artifact_type",
        "subject_digest",
        "payload",
        "size",
        "is_reachable",
        "created_at",
    ),
)
REFERRER: Final = Table(
    "catalog.Referrer",
    ("manifest_id", "image_id", "subject_digest", "artifact_type", "size", "descriptor"),
)
CHILD: Final = Table("catalog.ManifestChild", ("id", "parent_id", "child_id"))
LINK: Final = Table("catalog.BlobLink", ("id", "image_id", "manifest_id", "blob_id", "is_reachable"))
LEASE: Final = Table("catalog.BlobLease", ("id", "image_id", "blob_id", "expires_at"))
TAG: Final = Table("catalog.Tag", ("id", "image_id", "name", "manifest_id", "created_at", "updated_at"))
SESSION: Final = Table(
    "catalog.UploadSession", ("id", "image_id", "application_id", "created_at", "expires_at")
)
AUDIT: Final = Table(
    "audit.AuditEvent",
    (
        *("id", "at", "organization_id", "actor_kind", "actor_id", "actor_name"),
        *("verb", "target_kind", "target_id", "target_name", "detail"),
    ),
)
TABLES: Final = (NAMESPACE, IMAGE, BLOB, MANIFEST, REFERRER, CHILD, LINK, LEASE, TAG, SESSION, AUDIT)
NUMBERED: Final = (BLOB, MANIFEST, CHILD, LINK, LEASE, AUDIT)
"""Those whose ids are numbers."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a registry; both numbers are rounded up to tens."""

    manifests: int
    giant_tags: int  # tags of the repository `GIANT`, and so many of the manifests


GIANT: Final = ("growth-0", "giant")
"""Namespace and name of the repository with many tags."""


def giant_tag(number: int) -> str:
    """The name of a tag of the giant; names are numbered from 0 and in byte order."""
    return f"build-{number:07d}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """The principal that has pushed everything, and the project of the namespaces."""

    organization_id: UUID
    project_id: UUID
    application_id: UUID
    application_name: str


@dataclass(frozen=True, slots=True)
class Form:
    """Converts ids and times to the types of the database."""

    id: Callable[[UUID], DatabaseId]
    time: Callable[[datetime], Any]
