import pytest

from registry_data.oci.digest import Digest
from registry_data.oci.errors import ErrorCode, ProtocolError
from registry_data.oci.reference import (
    NAME_LIMIT,
    TAG_LIMIT,
    parse_reference,
    parse_repository,
    parse_tag,
)


@pytest.mark.parametrize(
    ("name", "namespace", "image"),
    [
        ("acme/app", "acme", "app"),
        ("acme/team/app", "acme", "team/app"),
        ("a/manifests/b", "a", "manifests/b"),
        ("a/blobs/uploads", "a", "blobs/uploads"),
        ("my-team/my__app.v2_x---y", "my-team", "my__app.v2_x---y"),
        ("0/1", "0", "1"),
        (f"a/{'b' * (NAME_LIMIT - 2)}", "a", "b" * (NAME_LIMIT - 2)),
    ],
)
def test_the_first_component_of_a_name_is_the_namespace(name: str, namespace: str, image: str) -> None:
    repository = parse_repository(name)
    assert (repository.namespace, repository.image) == (namespace, image)
    assert str(repository) == name


@pytest.mark.oci(18)
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "acme/",
        "/app",
        "acme//app",
        "Acme/app",
        "acme/App",
        "acme/app ",
        "acme/app\n",
        "acme/_app",
        "acme/app_",
        "acme/a___b",
        "acme/a..b",
        "acme/a._b",
        "acme/.app",
        "acme/-app",
        "acme/app-",
        "acme/a:b",
        "acme/../app",
        "acme/äpp",
        "acme/٣",
        "acme/a\0",
        "_catalog/app",
    ],
)
def test_a_malformed_name_is_rejected(name: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_repository(name)
    assert raised.value.code is ErrorCode.NAME_INVALID
    assert "is not a valid repository name" in raised.value.message


@pytest.mark.oci(19)
def test_a_too_long_name_is_rejected_with_the_limit() -> None:
    with pytest.raises(ProtocolError, match="has 256 characters; 255 at most") as raised:
        parse_repository(f"a/{'b' * (NAME_LIMIT - 1)}")
    assert raised.value.code is ErrorCode.NAME_INVALID


def test_a_name_without_a_namespace_is_unknown_with_a_helpful_message() -> None:
    with pytest.raises(ProtocolError, match="images are named <namespace>/<image>") as raised:
        parse_repository("alpine")
    assert raised.value.code is ErrorCode.NAME_UNKNOWN


@pytest.mark.oci(20)
@pytest.mark.parametrize("tag", ["latest", "V1.0", "_", "0", "a" * TAG_LIMIT, "sha256-00.sig", "1.2--3__4.."])
def test_a_tag_is_not_changed(tag: str) -> None:
    assert parse_tag(tag) == tag
    assert parse_reference(tag) == tag


@pytest.mark.oci(20)
@pytest.mark.parametrize(
    "tag",
    ["", ".INVALID_MANIFEST_NAME", "-x", "a" * (TAG_LIMIT + 1), "a b", "a/b", "a+b", "a\n", "ä", "٣", "a\0"],
)
def test_a_malformed_tag_is_rejected(tag: str) -> None:
    for parse in (parse_tag, parse_reference):
        with pytest.raises(ProtocolError) as raised:
            parse(tag)
        assert raised.value.code is ErrorCode.TAG_INVALID
        assert "is not a tag" in raised.value.message


def test_a_reference_with_a_colon_is_a_digest() -> None:
    digest = Digest.of(b"manifest", "sha512")
    assert parse_reference(str(digest)) == digest


@pytest.mark.parametrize("text", ["sha256:totallywrong", "latest:", ":latest", "a:b"])
def test_a_malformed_reference_with_a_colon_is_an_invalid_digest(text: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_reference(text)
    assert raised.value.code is ErrorCode.DIGEST_INVALID
