import pytest

from registry_data.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    normalise,
)


@pytest.mark.parametrize(
    ("content_type", "normal"),
    [
        (OCI_MANIFEST, OCI_MANIFEST),
        (f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (f" {OCI_MANIFEST.upper()} ;q=1;x", OCI_MANIFEST),
        ("", ""),
        (";", ""),
    ],
)
def test_parameters_and_case_are_ignored(content_type: str, normal: str) -> None:
    assert normalise(content_type) == normal


def test_four_types_of_manifests_are_supported_two_of_them_indexes() -> None:
    assert {OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST} == MANIFEST_TYPES
    assert {OCI_INDEX, DOCKER_LIST} == INDEX_TYPES
    assert not SCHEMA1_TYPES & MANIFEST_TYPES


def test_every_media_type_constant_is_normalized() -> None:
    for media_type in MANIFEST_TYPES | SCHEMA1_TYPES:
        assert normalise(media_type) == media_type
