"""Any pushed bytes are a valid manifest, or are rejected with MANIFEST_INVALID."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from registry_data.oci.digest import ALGORITHMS, Digest
from registry_data.oci.document import NESTING_LIMIT, read_document
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.manifest import ParsedManifest, parse_manifest
from registry_data.oci.media_types import (
    FOREIGN_LAYER_TYPES,
    IMAGE_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    SCHEMA1_TYPES,
)
from tests.properties.outcome import outcome

Json = dict[str, Any]

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


def in_containers(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )


anything = in_containers(plain | st.floats())  # including NaN, which Python writes and other parsers reject
digests = st.builds(Digest.of, st.binary(max_size=2), st.sampled_from(ALGORITHMS)).map(str)
descriptors = st.fixed_dictionaries(
    {
        "mediaType": texts.filter(bool) | st.sampled_from(sorted(MANIFEST_TYPES | FOREIGN_LAYER_TYPES)),
        "digest": digests,
        "size": st.integers(0, 2**63 - 1),
    },
    optional={"urls": st.lists(st.just("https://example.com/x"), max_size=2), "data": texts},
)
extras: dict[Any, st.SearchStrategy[Any]] = {
    "subject": descriptors,
    "artifactType": texts,
    "annotations": st.dictionaries(texts, texts),
    "org.example": in_containers(plain | st.floats(allow_nan=False, allow_infinity=False)),
}
images = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "config": descriptors, "layers": st.lists(descriptors)},
    optional=extras | {"mediaType": st.sampled_from(sorted(IMAGE_TYPES))},
)
indexes = st.fixed_dictionaries(
    {"schemaVersion": st.just(2), "manifests": st.lists(descriptors)},
    optional=extras | {"mediaType": st.sampled_from(sorted(INDEX_TYPES))},
)
content_types = st.none() | st.sampled_from(sorted(MANIFEST_TYPES | SCHEMA1_TYPES)) | st.text(max_size=20)


def parsed_or_refused(payload: bytes, content_type: str | None) -> ParsedManifest | None:
    manifest = outcome(parse_manifest, payload, content_type)
    if not isinstance(manifest, ProtocolError):
        return manifest
    assert manifest.code is ErrorCode.MANIFEST_INVALID
    assert manifest.message.isprintable()
    return None


def assert_keeps_the_rules(manifest: ParsedManifest) -> None:
    assert manifest.media_type in MANIFEST_TYPES
    assert manifest.is_index == (manifest.media_type in INDEX_TYPES) == (manifest.config is None)
    assert not (manifest.layers and manifest.manifests)
    for digests_once in (manifest.required_blobs, manifest.children):
        assert len(set(digests_once)) == len(digests_once)
    # the values can be stored in the database and serialized again
    json.dumps([manifest.annotations, manifest.artifact_type], ensure_ascii=False).encode()


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:\\ 0ue').map(str.encode), content_types)
def test_any_bytes_are_accepted_as_a_valid_manifest_or_rejected(
    payload: bytes, content_type: str | None
) -> None:
    manifest = parsed_or_refused(payload, content_type)
    if manifest is not None:
        assert_keeps_the_rules(manifest)


@given(images | indexes, st.data(), content_types)
def test_a_manifest_with_any_value_in_any_place_is_accepted_or_rejected(
    document: Json, data: st.DataObject, content_type: str | None
) -> None:
    # given a valid manifest in which one value, perhaps deep inside, is replaced by any other
    place: Any = document
    while True:
        at = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[at], dict | list) or not place[at] or data.draw(st.booleans()):
            break
        place = place[at]
    place[at] = data.draw(anything | descriptors)

    # then it is parsed or rejected according to the rules
    manifest = parsed_or_refused(json.dumps(document).encode(), content_type)
    if manifest is not None:
        assert_keeps_the_rules(manifest)


@given(images | indexes, st.booleans())
def test_every_valid_manifest_is_accepted_with_all_its_fields(document: Json, ascii_only: bool) -> None:
    manifest = parse_manifest(json.dumps(document, ensure_ascii=ascii_only).encode(), None)

    assert_keeps_the_rules(manifest)
    assert manifest.media_type == document.get("mediaType", manifest.media_type)
    assert [str(layer.digest) for layer in manifest.layers] == [
        layer["digest"] for layer in document.get("layers", [])
    ]
    assert [child.size for child in manifest.manifests] == [
        child["size"] for child in document.get("manifests", [])
    ]
    assert manifest.annotations == document.get("annotations", {})
    assert (manifest.subject is None) == ("subject" not in document)


@given(images)
def test_a_blob_is_optional_only_if_all_references_are_foreign_layers(document: Json) -> None:
    manifest = parse_manifest(json.dumps(document).encode(), None)
    assert manifest.config is not None
    assert manifest.config.digest in manifest.required_blobs
    for layer in manifest.layers:
        assert layer.is_foreign or layer.digest in manifest.required_blobs


@given(anything)
def test_the_nesting_limit_agrees_with_the_parser(value: object) -> None:
    # given a document of a known depth, with brackets in its strings too
    depth = nesting({"a": value, "text": '{[\\"'})
    padding = NESTING_LIMIT - depth
    document = json.dumps({"a": value, "text": '{[\\"'}, allow_nan=True)

    # then nesting it up to the limit is allowed, and one level more is not
    inside = f'{{"x":{"[" * (padding - 1)}{document}{"]" * (padding - 1)}}}'.encode()
    too_deep = f'{{"x":{"[" * padding}{document}{"]" * padding}}}'.encode()
    assert "nested more than" not in refusal_of(inside)
    assert "nested more than" in refusal_of(too_deep)


def nesting(value: object) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(nesting, inner), default=0)
    return 0


def refusal_of(payload: bytes) -> str:
    document = outcome(read_document, payload)
    return document.message if isinstance(document, ProtocolError) else ""
