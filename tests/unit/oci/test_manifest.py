"""Parsing of valid manifests (OCI 90-107)."""

import json
from collections.abc import Callable

import pytest

from registry_data.oci.digest import Digest
from registry_data.oci.manifest import (
    ANNOTATION_LIMIT,
    ANNOTATION_SIZE_LIMIT,
    DESCRIPTOR_LIMIT,
    MANIFEST_SIZE_LIMIT,
    Descriptor,
    parse_manifest,
)
from registry_data.oci.media_types import (
    DOCKER_MANIFEST,
    FOREIGN_LAYER_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
)
from tests.unit.oci.documents import (
    CONFIG_TYPE,
    FOREIGN_TYPE,
    LAYER_TYPE,
    Json,
    assert_rejected,
    descriptor,
    encode,
    image,
    index,
)


def test_an_image_manifest_requires_its_config_and_layers() -> None:
    manifest = parse_manifest(encode(image()), OCI_MANIFEST)
    assert (manifest.media_type, manifest.is_index) == (OCI_MANIFEST, False)
    assert manifest.config == Descriptor(CONFIG_TYPE, Digest.of(b"{}"), 2)
    assert manifest.layers == (
        Descriptor(LAYER_TYPE, Digest.of(b"one"), 3),
        Descriptor(LAYER_TYPE, Digest.of(b"two"), 3),
    )
    assert (manifest.manifests, manifest.children) == ((), ())
    assert manifest.required_blobs == (Digest.of(b"{}"), Digest.of(b"one"), Digest.of(b"two"))
    assert (manifest.subject, manifest.annotations) == (None, {})


def test_an_index_has_children_and_requires_no_blobs() -> None:
    manifest = parse_manifest(encode(index()), OCI_INDEX)
    assert (manifest.media_type, manifest.is_index) == (OCI_INDEX, True)
    assert manifest.manifests == (Descriptor(OCI_MANIFEST, Digest.of(b"child"), 5),)
    assert manifest.children == (Digest.of(b"child"),)
    assert (manifest.config, manifest.layers, manifest.required_blobs) == (None, (), ())


@pytest.mark.oci(101)
def test_a_digest_that_is_listed_twice_is_required_once() -> None:
    # given a layer with the digest of the config, as in artifacts, and a child listed for two platforms
    artifact = image(layers=[descriptor(), descriptor(b"one"), descriptor(b"one")])
    platforms = index(manifests=[descriptor(b"child", OCI_MANIFEST)] * 2)

    # then each digest is required once
    assert parse_manifest(encode(artifact), None).required_blobs == (Digest.of(b"{}"), Digest.of(b"one"))
    assert parse_manifest(encode(platforms), None).children == (Digest.of(b"child"),)


@pytest.mark.oci(98)
@pytest.mark.parametrize("media_type", sorted(FOREIGN_LAYER_TYPES))
def test_a_foreign_layer_with_urls_need_not_exist(media_type: str) -> None:
    layers = [descriptor(b"elsewhere", media_type, urls=["https://example.com/layer"]), descriptor(b"here")]
    manifest = parse_manifest(encode(image(layers=layers)), DOCKER_MANIFEST)
    assert [layer.is_foreign for layer in manifest.layers] == [True, False]
    assert manifest.required_blobs == (Digest.of(b"{}"), Digest.of(b"here"))


@pytest.mark.oci(98)
@pytest.mark.parametrize(
    "layer",
    [
        descriptor(b"here", FOREIGN_TYPE),
        descriptor(b"here", FOREIGN_TYPE, urls=[]),
        descriptor(b"here", LAYER_TYPE, urls=["https://example.com/layer"]),
    ],
)
def test_a_layer_must_exist_unless_it_is_foreign_and_has_urls(layer: Json) -> None:
    manifest = parse_manifest(encode(image(layers=[layer])), None)
    assert Digest.of(b"here") in manifest.required_blobs


@pytest.mark.oci(106)
def test_a_subject_is_parsed_but_not_required() -> None:
    subject = descriptor(b"the image", OCI_MANIFEST)
    for document in (image(subject=subject), index(subject=subject)):
        manifest = parse_manifest(encode(document), None)
        assert manifest.subject == Descriptor(OCI_MANIFEST, Digest.of(b"the image"), 9)
        assert Digest.of(b"the image") not in manifest.required_blobs + manifest.children


@pytest.mark.oci(125)
@pytest.mark.parametrize(
    ("document", "artifact_type"),
    [
        (image(artifactType="application/vnd.example"), "application/vnd.example"),
        (image(), CONFIG_TYPE),
        (image(artifactType=""), CONFIG_TYPE),
        (image(artifactType=None), CONFIG_TYPE),
        (index(artifactType="application/vnd.example"), "application/vnd.example"),
        (index(), None),
    ],
)
def test_the_artifact_type_falls_back_to_that_of_the_config(
    document: Json, artifact_type: str | None
) -> None:
    assert parse_manifest(encode(document), None).artifact_type == artifact_type


def test_annotations_are_not_changed() -> None:
    annotations = {"org.example/ä": "two\nlines", "": "", "Key": "1", "key": "2", "nested": '{"[": "\\""}'}
    assert parse_manifest(encode(image(annotations=annotations)), None).annotations == annotations
    # Go clients read null as an empty string, and may push what they have read.
    assert parse_manifest(encode(image(annotations={"a": None})), None).annotations == {"a": ""}


def spread(annotations: dict[str, str]) -> Json:
    """An index whose annotations are its own, its subject's and those of its children."""
    first, second, *rest = annotations.items()
    children = [descriptor(b"child", OCI_MANIFEST, annotations=dict([each])) for each in rest]
    subject = descriptor(b"subject", OCI_MANIFEST, annotations=dict([second]))
    return index(annotations=dict([first]), subject=subject, manifests=children)


@pytest.mark.parametrize("place", [lambda found: image(annotations=found), spread])
def test_the_number_of_annotations_is_limited_wherever_they_are(
    place: Callable[[dict[str, str]], Json],
) -> None:
    most = {str(number): "" for number in range(ANNOTATION_LIMIT)}
    parse_manifest(encode(place(most)), None)
    assert_rejected(place(most | {"more": ""}), "have 1001 annotations; 1000 at most are allowed")


def referrer(annotations: dict[str, str]) -> Json:
    return image(annotations=annotations, subject=descriptor(b"subject", OCI_MANIFEST))


@pytest.mark.parametrize("place", [referrer, spread])
def test_the_size_of_all_annotations_of_a_referrer_is_limited(
    place: Callable[[dict[str, str]], Json],
) -> None:
    keys = ("first", "second", "third")
    half = "ä" * (ANNOTATION_SIZE_LIMIT // 4)  # two bytes each
    most = {"first": half, "second": half[: -len("".join(keys))], "third": "x" * len("".join(keys))}
    parse_manifest(encode(place(most)), None)
    message = f"have {ANNOTATION_SIZE_LIMIT + 1} bytes; {ANNOTATION_SIZE_LIMIT} at most are allowed"
    assert_rejected(place(most | {"third": most["third"] + "x"}), message)


def test_a_manifest_without_a_subject_may_have_annotations_of_any_size() -> None:
    parse_manifest(encode(image(annotations={"large": "x" * 3_900_000})), None)


@pytest.mark.oci(125)
def test_a_referrers_descriptor_is_serialized_with_all_its_fields() -> None:
    annotations = {"org.example": "ä"}
    parsed = parse_manifest(encode(image(artifactType="application/x", annotations=annotations)), None)
    entry = json.loads(parsed.descriptor(Digest.of(b"x"), 7))
    assert entry == {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(b"x")),
        "size": 7,
        "artifactType": "application/x",
        "annotations": annotations,
    }
    bare = parse_manifest(encode(index()), None).descriptor(Digest.of(b"x"), 7)
    assert json.loads(bare).keys() == {"mediaType", "digest", "size"}


@pytest.mark.oci(95, 101, 105)
@pytest.mark.parametrize(
    "document",
    [
        image(layers=[]),
        image(layers=None),
        image(subject=None, annotations=None, manifests=None),
        image(layers=[descriptor(b"x", "whatever I call it")]),
        image(
            config=descriptor(data="e30=", annotations={"a": "b"}, platform={"os": "linux"}, new=[1.5, True])
        ),
        image(layers=[descriptor(size=0), descriptor(size=2**63 - 1)]),
        image(layers=[descriptor() | {"digest": str(Digest.of(b"x", "sha512"))}]),
        image(**{"org.example": [None, {"deep": [[[]]]}], "Konfig": 1}),
        index(manifests=[]),
        index(manifests=None),
        index(manifests=[descriptor(b"layer", LAYER_TYPE), descriptor(b"index", OCI_INDEX)]),
        index(config=None, layers=None),
    ],
)
def test_unusual_but_valid_documents_are_accepted(document: Json) -> None:
    content_type = OCI_INDEX if "config" not in document or document["config"] is None else OCI_MANIFEST
    parse_manifest(encode(document), content_type)


def test_the_largest_allowed_manifests_are_accepted() -> None:
    layers = image(layers=[descriptor()] * DESCRIPTOR_LIMIT)
    assert len(parse_manifest(encode(layers), None).layers) == DESCRIPTOR_LIMIT
    short = encode(image(pad=""))
    full = encode(image(pad="x" * (MANIFEST_SIZE_LIMIT - len(short))))
    assert len(full) == MANIFEST_SIZE_LIMIT
    parse_manifest(full, None)
