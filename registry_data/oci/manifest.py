"""Parses and validates manifests and indexes as they are pushed (OCI 90-107).

Without I/O: the caller checks that the content exists to which `required_blobs`, `optional_blobs` and
`children` refer.
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

MANIFEST_SIZE_LIMIT: Final = 4 * 1024 * 1024  # bytes (OCI 96)
DESCRIPTOR_LIMIT: Final = 10_000  # entries of `layers` or `manifests`
ANNOTATION_LIMIT: Final = 1000  # annotations of a manifest, those of its descriptors included
ANNOTATION_SIZE_LIMIT: Final = 256 * 1024  # bytes of their keys and values together
MEDIA_TYPE_LIMIT: Final = 255  # characters: RFC 6838, section 4.2 allows 127 on each side of the slash

# With another scheme, such as file:, clients would read a local file as the layer (OCI 99).
_URL: Final = re.compile(r"https?://[^/?#\s]\S*", re.IGNORECASE)
_PLATFORM_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
_DOCUMENT_FIELDS: Final = (
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
)  # fmt: skip
_DESCRIPTOR_FIELDS: Final = ("mediaType", "digest", "size", "urls")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor: media type, digest, size in bytes, and URLs from which the content can be downloaded."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: str = ""  # os/architecture/variant; empty if missing or malformed
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_foreign(self) -> bool:
        """Whether the content need not be in the registry (OCI 98)."""
        return bool(self.urls) and normalise(self.media_type) in FOREIGN_LAYER_TYPES


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """A valid image manifest, or with `is_index` an index."""

    media_type: str
    is_index: bool
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None  # need not exist (OCI 106)
    artifact_type: str | None  # as in the referrers list (OCI 125)
    annotations: dict[str, str]

    @property
    def required_blobs(self) -> tuple[Digest, ...]:
        """The blobs that must exist, without duplicates: config and layers, except foreign layers."""
        config = () if self.config is None else (self.config,)
        return _distinct((*config, *(layer for layer in self.layers if not layer.is_foreign)))

    @property
    def optional_blobs(self) -> tuple[Digest, ...]:
        """The foreign layers, which need not exist; those that do are linked like any other layer."""
        return _distinct(layer for layer in self.layers if layer.is_foreign)

    @property
    def children(self) -> tuple[Digest, ...]:
        """The digests in an index, without duplicates; a child may be a manifest or a blob (OCI 103)."""
        return _distinct(self.manifests)

    @property
    def platforms(self) -> dict[Digest, str]:
        """The children whose media type is a manifest type, with their platforms (OCI 104)."""
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
    """Parse a pushed manifest; `content_type` is the Content-Type header of the request.

    Raises MANIFEST_INVALID: with status 413 if it is longer than MANIFEST_SIZE_LIMIT, else with 400.
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
    """Create the error for a manifest longer than MANIFEST_SIZE_LIMIT."""
    return ProtocolError(
        ErrorCode.MANIFEST_INVALID,
        f"the manifest is too large; {MANIFEST_SIZE_LIMIT} bytes at most are allowed",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _check_annotations(parsed: ParsedManifest) -> None:
    """Limit annotations, because every response that lists a referrer repeats them (ADR 41).

    Their size is limited only for manifests with a subject: no list repeats the others, and the official
    conformance suite requires one with 390 annotations of 10,000 bytes to be accepted.
    """
    single = filter(None, (parsed.config, parsed.subject))
    descriptors = (*single, *parsed.layers, *parsed.manifests)
    annotations = [parsed.annotations, *(descriptor.annotations for descriptor in descriptors)]
    count = sum(map(len, annotations))
    if count > ANNOTATION_LIMIT:
        raise invalid(
            f"the manifest and its descriptors have {count} annotations; "
            f"{ANNOTATION_LIMIT} at most are allowed"
        )
    if parsed.subject is None:
        return
    size = sum(len(key.encode()) + len(value.encode()) for each in annotations for key, value in each.items())
    if size > ANNOTATION_SIZE_LIMIT:
        raise invalid(
            f"the annotations of the manifest and its descriptors have {size} bytes; "
            f"{ANNOTATION_SIZE_LIMIT} at most are allowed in a manifest with a subject"
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
    raise invalid("neither Content-Type nor mediaType contains the type of the manifest; send one of them")


def _check_shape(document: Fields, *, is_index: bool) -> None:
    """Reject a document that is an image for one parser and an index for another (CVE-2021-41190)."""
    kind = "an index" if is_index else "an image manifest"
    for name in ("config", "layers") if is_index else ("manifests",):
        if document.has(name):
            raise invalid(f"{kind} must not have {name}")
    # Not `document.has`: Go programs serialize an empty list as null.
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
        # DIGEST_INVALID is the error for the digest of the request.
        raise invalid(f"{fields.path('digest')}: {error.message}") from error


def _urls(fields: Fields) -> tuple[str, ...]:
    urls = fields.texts("urls")
    for at, url in enumerate(urls):
        if not _URL.fullmatch(url):
            raise invalid(f"{fields.path('urls')}[{at}] must be an http or https URL, not {shown(url)}")
    return urls


def _platform(fields: Fields) -> str:
    """The platform of a descriptor for messages; empty if it is missing or malformed."""
    platform = fields.values.get("platform")
    values = platform if isinstance(platform, dict) else {}
    words = [str(values[name]) for name in ("os", "architecture", "variant") if values.get(name)]
    return "/".join(words) if all(map(_PLATFORM_WORD.fullmatch, words)) else ""


def _distinct(descriptors: Iterable[Descriptor]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(descriptor.digest for descriptor in descriptors))
