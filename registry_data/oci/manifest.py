"""Manifests and indexes as pushed: what they must look like and what they refer to (checklist 90-107).

Pure: whether the things referred to exist is the caller's question, with `required_blobs`, `optional_blobs`
and `children`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from registry_data.oci.digest import Digest
from registry_data.oci.document import Fields, invalid, read_document
from registry_data.oci.errors import ErrorCode, ProtocolError, shown
from registry_data.oci.media_types import (
    FOREIGN_LAYER_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_ARTIFACT_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    normalise,
)

MANIFEST_SIZE_LIMIT: Final = 4 * 1024 * 1024  # bytes (checklist 96)
DESCRIPTOR_LIMIT: Final = 10_000  # entries of `layers` or `manifests`
ANNOTATION_LIMIT: Final = 1000  # annotations of a manifest, those of its descriptors included
ANNOTATION_SIZE_LIMIT: Final = 256 * 1024  # bytes of their keys and values together
MEDIA_TYPE_LIMIT: Final = 255  # characters: RFC 6838, section 4.2 allows 127 on each side of the slash

# Another scheme would have clients read their own files for a layer (checklist 99).
_URL: Final = re.compile(r"https?://[^/?#\s]\S*", re.IGNORECASE)
_PLATFORM_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_DOCUMENT_FIELDS: Final = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
)  # fmt: skip
_DESCRIPTOR_FIELDS: Final = ("mediaType", "digest", "size", "urls")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a piece of content: type, name, size in bytes, and where else it may be had."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: str = ""  # os/architecture/variant, when it says so in plain words
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether the content may live elsewhere only (checklist 98)."""
        return bool(self.urls) and normalise(self.media_type) in FOREIGN_LAYER_TYPES


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A manifest, or with `is_index` an index, that keeps every rule of form."""

    media_type: str
    is_index: bool
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None  # need not exist (checklist 106)
    artifact_type: str | None  # as a referrer shows it (checklist 125)
    annotations: dict[str, str]

    @property
    def required_blobs(self) -> tuple[Digest, ...]:
        """The blobs that must exist, each once: config and layers, less those that live elsewhere."""
        config = () if self.config is None else (self.config,)
        return _distinct((*config, *(layer for layer in self.layers if not layer.is_foreign)))

    @property
    def optional_blobs(self) -> tuple[Digest, ...]:
        """The layers that may live elsewhere: what of them is here belongs to the manifest like any other."""
        return _distinct(layer for layer in self.layers if layer.is_foreign)

    @property
    def children(self) -> tuple[Digest, ...]:
        """What an index lists, each once; a child may be a manifest or a blob (checklist 103)."""
        return _distinct(self.manifests)

    @property
    def platforms(self) -> dict[Digest, str]:
        """The children that are manifests by their type, each with its platform (checklist 104)."""
        return {
            child.digest: child.platform
            for child in self.manifests
            if normalise(child.media_type) in MANIFEST_TYPES
        }

    def descriptor(self, digest: Digest, size: int) -> bytes:
        """Serialize the entry of this manifest in the referrers list of its subject (OCI 125)."""
        entry: dict[str, object] = {"mediaType": self.media_type, "digest": str(digest), "size": size}
        if self.artifact_type:
            entry["artifactType"] = self.artifact_type
        if self.annotations:
            entry["annotations"] = self.annotations
        return json.dumps(entry, ensure_ascii=False).encode()


def parse_manifest(payload: bytes, content_type: str | None) -> ParsedManifest:
    """Read a pushed manifest, `content_type` being the request's header.

    Raises MANIFEST_INVALID: with status 413 when longer than MANIFEST_SIZE_LIMIT, else 400.
    """
    if len(payload) > MANIFEST_SIZE_LIMIT:
        raise manifest_too_large()
    document = read_document(payload)
    document.refuse_lookalikes(_DOCUMENT_FIELDS)
    _check_version(document)
    media_type = _media_type(document, content_type)
    is_index = media_type in INDEX_TYPES
    _check_shape(document, is_index=is_index)
    config = _optional_descriptor(document, "config")
    parsed = ParsedManifest(
        media_type=media_type,
        is_index=is_index,
        config=config,
        layers=_descriptors(document, "layers"),
        manifests=_descriptors(document, "manifests"),
        subject=_optional_descriptor(document, "subject"),
        artifact_type=_media_type_field(document, "artifactType") or (config.media_type if config else None),
        annotations=document.text_map("annotations"),
    )
    _check_annotations(parsed)
    return parsed


def manifest_too_large() -> ProtocolError:
    """Make the refusal of a manifest over MANIFEST_SIZE_LIMIT, also for who stops reading one."""
    return ProtocolError(
        ErrorCode.MANIFEST_INVALID,
        f"the manifest is too large; {MANIFEST_SIZE_LIMIT} bytes at most are allowed",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _check_annotations(parsed: ParsedManifest) -> None:
    """Limit annotations, because every response that lists a referrer repeats them (ADR 41)."""
    single = filter(None, (parsed.config, parsed.subject))
    descriptors = (*single, *parsed.layers, *parsed.manifests)
    annotations = [parsed.annotations, *(descriptor.annotations for descriptor in descriptors)]
    count = sum(map(len, annotations))
    if count > ANNOTATION_LIMIT:
        raise invalid(
            f"the manifest and its descriptors have {count} annotations; "
            f"{ANNOTATION_LIMIT} at most are allowed"
        )
    size = sum(len(key.encode()) + len(value.encode()) for each in annotations for key, value in each.items())
    if size > ANNOTATION_SIZE_LIMIT:
        raise invalid(
            f"the annotations of the manifest and its descriptors have {size} bytes; "
            f"{ANNOTATION_SIZE_LIMIT} at most are allowed"
        )


def _check_version(document: Fields) -> None:
    version = document.values.get("schemaVersion")
    if version == 1:
        raise _schema1()
    if type(version) is not int or version != 2:
        raise invalid("schemaVersion must be 2")


def _schema1() -> ProtocolError:
    return invalid("manifests of schema version 1 are no longer accepted; push with Docker 1.10 or later")


def _media_type(document: Fields, content_type: str | None) -> str:
    declared = normalise(content_type or "")
    inside = normalise(_media_type_field(document, "mediaType"))
    if declared and inside and declared != inside:
        raise invalid(
            f"Content-Type {shown(declared)} and mediaType {shown(inside)} differ; send the same in both"
        )
    media_type = declared or inside or _guessed_type(document)
    if media_type in SCHEMA1_TYPES:
        raise _schema1()
    if media_type == OCI_ARTIFACT_MANIFEST:
        raise invalid(
            "OCI artifact manifests were withdrawn; push an image manifest with an artifactType instead"
        )
    if media_type not in MANIFEST_TYPES:
        raise invalid(f"{shown(media_type)} is not a manifest type that this registry stores")
    return media_type


def _guessed_type(document: Fields) -> str:
    if document.has("manifests"):
        return OCI_INDEX
    if document.has("config") or document.has("layers"):
        return OCI_MANIFEST
    raise invalid("neither Content-Type nor mediaType says what the manifest is; send one of them")


def _check_shape(document: Fields, *, is_index: bool) -> None:
    """Refuse what one reader takes for an image and another for an index (CVE-2021-41190)."""
    kind = "an index" if is_index else "an image manifest"
    for name in ("config", "layers") if is_index else ("manifests",):
        if document.has(name):
            raise invalid(f"{kind} must not have {name}")
    # Looked up in `values`, not with `has`: Go programs write an empty list as null.
    if ("manifests" if is_index else "layers") not in document.values:
        raise invalid(f"{kind} must have {'manifests' if is_index else 'layers'}")
    if not is_index and not document.has("config"):
        raise invalid(f"{kind} must have config")


def _optional_descriptor(document: Fields, name: str) -> Descriptor | None:
    fields = document.child(name)
    return None if fields is None else _descriptor(fields)


def _descriptors(document: Fields, name: str) -> tuple[Descriptor, ...]:
    return tuple(_descriptor(fields) for fields in document.children(name, limit=DESCRIPTOR_LIMIT))


def _descriptor(fields: Fields) -> Descriptor:
    fields.refuse_lookalikes(_DESCRIPTOR_FIELDS)
    media_type = _media_type_field(fields, "mediaType")
    if not media_type:
        raise invalid(f"{fields.path('mediaType')} is missing; every descriptor needs one")
    return Descriptor(
        media_type=media_type,
        digest=_digest(fields),
        size=fields.integer("size"),
        urls=_urls(fields),
        platform=_platform(fields),
        annotations=fields.text_map("annotations"),
    )


def _media_type_field(fields: Fields, name: str) -> str:
    text = fields.text(name)
    if len(text) > MEDIA_TYPE_LIMIT:
        raise invalid(f"{fields.path(name)} is longer than {MEDIA_TYPE_LIMIT} characters")
    return text


def _digest(fields: Fields) -> Digest:
    try:
        return Digest.parse(fields.text("digest"))
    except ProtocolError as error:
        # The digest of the request is another matter, with a code of its own.
        raise invalid(f"{fields.path('digest')}: {error.message}") from error


def _urls(fields: Fields) -> tuple[str, ...]:
    urls = fields.texts("urls")
    for at, url in enumerate(urls):
        if not _URL.fullmatch(url):
            raise invalid(f"{fields.path('urls')}[{at}] must be an http or https URL, not {shown(url)}")
    return urls


def _platform(fields: Fields) -> str:
    """What a descriptor says of its platform, for people to read; anything odd is no platform."""
    said = fields.values.get("platform")
    values = said if isinstance(said, dict) else {}
    words = [str(values[name]) for name in ("os", "architecture", "variant") if values.get(name)]
    return "/".join(words) if all(map(_PLATFORM_WORD.fullmatch, words)) else ""


def _distinct(descriptors: Iterable[Descriptor]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(descriptor.digest for descriptor in descriptors))
