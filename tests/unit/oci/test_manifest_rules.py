"""The rules for manifests, each with valid and invalid examples (OCI 90-107)."""

from http import HTTPStatus

import pytest

from registry_data.oci.digest import Digest
from registry_data.oci.manifest import (
    DESCRIPTOR_LIMIT,
    MANIFEST_SIZE_LIMIT,
    MEDIA_TYPE_LIMIT,
    parse_manifest,
)
from registry_data.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
)
from tests.unit.oci.documents import Json, assert_rejected, descriptor, encode, error_of, image, index

# --- the type: Content-Type, mediaType, or derived from the fields


@pytest.mark.oci(90, 91)
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_the_type_of_an_image_may_be_in_the_header_or_in_the_body_or_in_both(media_type: str) -> None:
    for body, header in (
        (image(mediaType=media_type), None),
        (image(mediaType=media_type), ""),
        (image(), media_type),
        (image(mediaType=""), media_type),
        (image(mediaType=media_type), f"{media_type.upper()}; charset=utf-8"),
    ):
        assert parse_manifest(encode(body), header).media_type == media_type


@pytest.mark.oci(90, 91)
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_the_type_of_an_index_may_be_in_the_header_or_in_the_body(media_type: str) -> None:
    assert parse_manifest(encode(index()), media_type).media_type == media_type
    assert parse_manifest(encode(index(mediaType=media_type)), None).media_type == media_type


@pytest.mark.oci(91)
def test_without_a_type_the_fields_decide() -> None:
    assert parse_manifest(encode(index()), None).media_type == OCI_INDEX
    assert parse_manifest(encode(image()), None).media_type == OCI_MANIFEST
    assert_rejected({"schemaVersion": 2}, "neither Content-Type nor mediaType")


@pytest.mark.oci(92)
def test_contradicting_types_are_rejected() -> None:
    assert_rejected(image(mediaType=OCI_MANIFEST), "differ; send the same in both", DOCKER_MANIFEST)


@pytest.mark.oci(93)
@pytest.mark.parametrize("media_type", sorted(SCHEMA1_TYPES))
def test_schema_1_is_rejected_by_name(media_type: str) -> None:
    for document in (image(), {"schemaVersion": 1, "name": "acme/app", "fsLayers": []}):
        assert_rejected(document, "schema version 1 are no longer accepted", media_type)
    assert_rejected(image(schemaVersion=1), "schema version 1 are no longer accepted")


@pytest.mark.oci(93)
def test_the_withdrawn_artifact_manifest_is_rejected_by_name() -> None:
    assert_rejected({"schemaVersion": 2, "mediaType": OCI_ARTIFACT_MANIFEST}, "were withdrawn")


@pytest.mark.oci(93)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "x", "application/octet-stream"])
def test_other_types_are_rejected(media_type: str) -> None:
    assert_rejected(image(), f"'{media_type}' is not a manifest type", media_type)
    assert_rejected(image(mediaType=media_type), f"'{media_type}' is not a manifest type")


@pytest.mark.parametrize("version", [None, 0, 3, -2, 2.0, "2", [2], True])
def test_a_schema_version_other_than_2_is_rejected(version: object) -> None:
    error = error_of(encode(image(schemaVersion=version)))
    assert "schema" in error.message


# --- fields


@pytest.mark.oci(94)
@pytest.mark.parametrize("header", [None, OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST])
@pytest.mark.parametrize("name", ["config", "layers"])
def test_a_document_that_could_be_image_and_index_is_rejected(header: str | None, name: str) -> None:
    both = index() | {name: image()[name]}
    assert_rejected(both, "must not have", header)
    assert_rejected(image() | {"manifests": []}, "must not have", header)


def test_an_image_with_the_type_of_an_index_is_rejected_and_vice_versa() -> None:
    assert_rejected(image(), "an index must not have config", OCI_INDEX)
    assert_rejected(index(), "an image manifest must not have manifests", OCI_MANIFEST)


@pytest.mark.parametrize(
    ("document", "content_type", "message"),
    [
        ({"schemaVersion": 2}, OCI_INDEX, "an index must have manifests"),
        ({"schemaVersion": 2, "layers": []}, OCI_MANIFEST, "an image manifest must have config"),
        ({"schemaVersion": 2, "config": descriptor()}, OCI_MANIFEST, "an image manifest must have layers"),
        (image(config=None), DOCKER_MANIFEST, "an image manifest must have config"),
        (image(config=[]), OCI_MANIFEST, "config must be an object"),
        (image(config="x"), OCI_MANIFEST, "config must be an object"),
        (image(layers={}), OCI_MANIFEST, "layers must be an array"),
        (image(layers=[descriptor(), None]), OCI_MANIFEST, "layers[1] must be an object"),
        (image(layers=[[]]), OCI_MANIFEST, "layers[0] must be an object"),
        (index(manifests=0), OCI_INDEX, "manifests must be an array"),
        (image(subject=[]), OCI_MANIFEST, "subject must be an object"),
        (image(subject={}), OCI_MANIFEST, "subject.mediaType is missing"),
        (image(mediaType=2), OCI_MANIFEST, "mediaType must be a string"),
        (image(artifactType={}), OCI_MANIFEST, "artifactType must be a string"),
        (image(artifactType="x" * (MEDIA_TYPE_LIMIT + 1)), OCI_MANIFEST, "artifactType is longer than 255"),
        (image(artifactType="a\0"), OCI_MANIFEST, "artifactType must not contain NUL"),
        (image(annotations=[]), OCI_MANIFEST, "annotations must be an object"),
        (image(annotations={"a": 1}), OCI_MANIFEST, "annotations['a'] must be a string"),
        (image(annotations={"a": "\0"}), OCI_MANIFEST, "annotations['a'] must not contain NUL"),
        (image(annotations={"a": "\ud800"}), OCI_MANIFEST, "annotations['a'] must not contain NUL or half"),
        (image(annotations={"\udfff": "a"}), OCI_MANIFEST, "annotations must not contain NUL or half"),
        (image(layers=[descriptor()] * (DESCRIPTOR_LIMIT + 1)), OCI_MANIFEST, "layers has 10001 entries"),
    ],
)
def test_an_invalid_document_is_rejected_with_the_path_of_the_field(
    document: Json, content_type: str, message: str
) -> None:
    assert_rejected(document, message, content_type)


@pytest.mark.oci(95, 99)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mediaType": None}, "layers[0].mediaType is missing"),
        ({"mediaType": ""}, "layers[0].mediaType is missing"),
        ({"mediaType": "x" * (MEDIA_TYPE_LIMIT + 1)}, "layers[0].mediaType is longer than 255"),
        ({"digest": None}, "layers[0].digest: '' is not a digest"),
        ({"digest": 7}, "layers[0].digest must be a string"),
        ({"digest": "sha256:x"}, "layers[0].digest: 'sha256:x' is not a digest"),
        ({"digest": f"blake3:{'0' * 64}"}, "layers[0].digest: digest algorithm 'blake3' is not supported"),
        ({"size": None}, "layers[0].size must be an integer from 0"),
        ({"size": -1}, "layers[0].size must be an integer from 0"),
        ({"size": 2**63}, "layers[0].size must be an integer from 0"),
        ({"size": True}, "layers[0].size must be an integer from 0"),
        ({"size": 1.0}, "layers[0].size must be an integer"),
        ({"size": "1"}, "layers[0].size must be an integer"),
        ({"urls": "https://example.com"}, "layers[0].urls must be an array"),
        ({"urls": [1]}, "layers[0].urls[0] must be a string"),
        (
            {"urls": ["https://example.com/x", "file:///etc/passwd"]},
            "layers[0].urls[1] must be an http or https",
        ),
        ({"urls": ["ftp://example.com"]}, "must be an http or https URL, not 'ftp://example.com'"),
        ({"urls": ["https://"]}, "must be an http or https URL"),
        ({"urls": ["https:///path"]}, "must be an http or https URL"),
        ({"urls": ["//example.com"]}, "must be an http or https URL"),
        ({"urls": ["https://example.com/a b"]}, "must be an http or https URL"),
        ({"Digest": str(Digest.of(b"other"))}, "layers[0].'Digest' must be written digest"),
    ],
)
def test_an_invalid_descriptor_is_rejected_with_the_path_of_the_field(changes: Json, message: str) -> None:
    assert_rejected(image(layers=[descriptor() | changes]), message, OCI_MANIFEST)


@pytest.mark.oci(99)
@pytest.mark.parametrize("url", ["http://example.com", "HTTPS://example.com:8443/a?b=c", "http://[::1]/x"])
def test_http_and_https_urls_are_accepted_in_any_descriptor(url: str) -> None:
    manifest = parse_manifest(encode(index(manifests=[descriptor(urls=[url])])), None)
    assert manifest.manifests[0].urls == (url,)


@pytest.mark.parametrize("name", ["Layers", "MANIFESTS", "mediatype", "layer\u017f", "Subject"])
def test_a_field_that_go_would_read_as_another_is_rejected(name: str) -> None:
    assert_rejected(image(**{name: []}), "must be written", OCI_MANIFEST)


@pytest.mark.oci(96)
def test_a_manifest_over_the_limit_is_413() -> None:
    error = error_of(b" " * (MANIFEST_SIZE_LIMIT + 1), OCI_MANIFEST)
    assert error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "4194304 bytes at most" in error.message
