"""cosign signs and attests, with tags as in earlier versions and with referrers as in the current one.

Without the internet: with a key of one's own, and no transparency log.
"""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import WRONG
from tests.clients.programs import Program
from tests.tenants import LAYER, Tenants

pytestmark = pytest.mark.clients

OFFLINE = ["--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--yes"]
UNLOGGED = "--insecure-ignore-tlog=true"
VERIFY = ["--key", "cosign.pub", UNLOGGED]
SCAN = ["--type", "https://example.test/scan"]
OLD, NEW = "--new-bundle-format=false", "--new-bundle-format=true"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
DENIED = "DENIED: requested access to the resource is denied: you may not"
UNAUTHORIZED = "UNAUTHORIZED: the secret key is unknown, revoked or expired: use one of your API keys"


def login(cosign: Program, tenants: Tenants, secret: str | None) -> None:
    """cosign's login does not verify the secret."""
    words = ["login", tenants.owner.host, "-u", "x", "--password-stdin"]
    assert "logged in via" in cosign(*words, stdin=secret or "").stderr


@pytest.fixture
def cosign(tmp_path: Path, tenants: Tenants) -> Program:
    """cosign with a key pair, logged in as the owner."""
    program = Program("cosign", tmp_path / "home", folder=tmp_path)
    program.environment |= {"COSIGN_PASSWORD": "", "TUF_ROOT": str(tmp_path / "tuf")}
    program("generate-key-pair")
    login(program, tenants, tenants.owner.secret)
    (tmp_path / "predicate.json").write_text('{"scanned": true}')
    return program


@pytest.fixture
def repository(tenants: Tenants) -> str:
    return tenants.repository()


@pytest.fixture
def image(tenants: Tenants, repository: str) -> str:
    digest = tenants.owner.push_image(repository, "1", LAYER)
    return f"{tenants.owner.host}/{repository}@{digest}"


def referrers(tenants: Tenants, image: str) -> list[str]:
    """The artifact types in the registry's own list of referrers."""
    repository, _, digest = image.partition("/")[2].partition("@")
    found = tenants.owner.on(repository, "GET", f"referrers/{digest}").json()["manifests"]
    return [item["artifactType"] for item in found]


def tags(tenants: Tenants, repository: str) -> list[str]:
    found: list[str] = tenants.owner.on(repository, "GET", "tags/list").json()["tags"]
    return found


@pytest.mark.oci(186)
def test_an_old_signature_is_a_tag(cosign: Program, tenants: Tenants, repository: str, image: str) -> None:
    # when an image is signed in the old format
    cosign("sign", *OFFLINE, OLD, image)

    # then the signature has the tag that is derived from the digest, and is verified
    expected = image.partition("@")[2].replace(":", "-") + ".sig"
    assert tags(tenants, repository) == ["1", expected]
    verified = cosign("verify", *VERIFY, OLD, image)
    assert json.loads(verified.stdout)[0]["critical"]["image"]["docker-manifest-digest"] in image
    assert "Signatures for an image tag" in cosign("tree", image).stdout


@pytest.mark.oci(186)
def test_a_new_signature_is_a_bundle_that_refers_to_the_image(
    cosign: Program, tenants: Tenants, repository: str, image: str
) -> None:
    # when an image is signed in the new format
    cosign("sign", *OFFLINE, NEW, image)

    # then the bundle is a referrer, no tag is added, and it is verified
    assert referrers(tenants, image) == [BUNDLE]
    assert tags(tenants, repository) == ["1"]
    cosign("verify", *VERIFY, NEW, image)
    assert "https://sigstore.dev/cosign/sign/v1 artifacts via OCI referrer" in cosign("tree", image).stdout


@pytest.mark.parametrize("form", [OLD, NEW])
def test_attestations_are_found_and_verified(
    cosign: Program, tenants: Tenants, repository: str, image: str, form: str
) -> None:
    # when an attestation is created
    cosign("attest", *OFFLINE, form, *SCAN, "--predicate", "predicate.json", image)

    # then it is stored in the place of its format, shown and verified, and no other is
    expected = image.partition("@")[2].replace(":", "-") + ".att"
    assert tags(tenants, repository) == (["1", expected] if form == OLD else ["1"])
    assert referrers(tenants, image) == ([] if form == OLD else [BUNDLE])
    shown = "Attestations for an image tag" if form == OLD else f"{SCAN[1]} artifacts via OCI referrer"
    assert shown in cosign("tree", image).stdout
    cosign("verify-attestation", *VERIFY, form, *SCAN, image)
    other = cosign("verify-attestation", *VERIFY, form, "--type", f"{SCAN[1]}-2", image, check=False)
    assert "none of the attestations matched the predicate type" in other.stderr


@pytest.mark.parametrize("form", [OLD, NEW])
def test_a_signature_of_another_key_is_not_verified(cosign: Program, image: str, form: str) -> None:
    cosign("sign", *OFFLINE, form, image)
    cosign("attest", *OFFLINE, form, *SCAN, "--predicate", "predicate.json", image)
    cosign("generate-key-pair", "--output-key-prefix", "other")
    for words in (["verify"], ["verify-attestation", *SCAN]):
        verified = cosign(*words, "--key", "other.pub", UNLOGGED, form, image, check=False)
        assert verified.returncode != 0
        assert "no matching" in verified.stderr


def test_a_copy_includes_old_signatures(
    cosign: Program, tenants: Tenants, repository: str, image: str
) -> None:
    cosign("sign", *OFFLINE, OLD, image)
    target = f"{tenants.owner.host}/{tenants.repository()}"
    cosign("copy", image, f"{target}:copied")
    digest = image.partition("@")[2]
    cosign("verify", *VERIFY, OLD, f"{target}@{digest}")


def test_a_bundle_is_copied_by_oras(cosign: Program, tenants: Tenants, tmp_path: Path, image: str) -> None:
    # given a signature whose subject is the image
    cosign("sign", *OFFLINE, NEW, image)
    by_cosign, by_oras = (f"{tenants.owner.host}/{tenants.repository()}" for _ in range(2))
    oras = Program("oras", tmp_path / "home")  # the file in which cosign's login is stored

    # when the image is copied with cosign, and then with oras
    cosign("copy", image, f"{by_cosign}:1")
    oras("cp", "--recursive", "--from-plain-http", "--to-plain-http", image, f"{by_oras}:1")

    # then cosign has not copied the bundle, as with any registry
    left = cosign("verify", *VERIFY, NEW, f"{by_cosign}:1", check=False)
    assert "no signatures found" in left.stderr
    cosign("verify", *VERIFY, NEW, f"{by_oras}:1")


def test_an_image_is_saved_and_loaded_with_its_old_signature(
    cosign: Program, tenants: Tenants, image: str
) -> None:
    cosign("sign", *OFFLINE, OLD, image)
    cosign("save", "--dir", "saved", image)
    target = f"{tenants.owner.host}/{tenants.repository()}:loaded"
    cosign("load", "--dir", "saved", target)
    cosign("verify", *VERIFY, OLD, target)


@pytest.mark.oci(97)
def test_a_bundle_is_not_loaded_before_its_layer(cosign: Program, tenants: Tenants, image: str) -> None:
    """`cosign load` pushes a bundle's manifest before its layer (github.com/sigstore/cosign/issues/5030)."""
    cosign("sign", *OFFLINE, NEW, image)
    cosign("save", "--dir", "saved", image)
    loaded = cosign("load", "--dir", "saved", f"{tenants.owner.host}/{tenants.repository()}:1", check=False)
    assert loaded.returncode != 0
    assert "MANIFEST_BLOB_UNKNOWN: the manifest refers to sha256:" in loaded.stderr
    assert "which this repository does not have: push it first" in loaded.stderr


@pytest.mark.oci(129, 139)
@pytest.mark.parametrize("form", [OLD, NEW])
def test_signatures_and_attestations_are_removed(
    cosign: Program, tenants: Tenants, repository: str, image: str, form: str
) -> None:
    # given an image with both
    cosign("sign", *OFFLINE, form, image)
    cosign("attest", *OFFLINE, form, *SCAN, "--predicate", "predicate.json", image)

    # when it is cleaned by tag or by digest, depending on the format
    cosign("clean", "--force", image)

    # then only the image is left
    assert (tags(tenants, repository), referrers(tenants, image)) == (["1"], [])
    assert "No Supply Chain Security Related Artifacts found" in cosign("tree", image).stdout
    assert "no signatures found" in cosign("verify", *VERIFY, form, image, check=False).stderr


@pytest.mark.parametrize("who", ["stranger", "nobody"])
def test_an_unauthorized_caller_gets_a_readable_error(
    cosign: Program, tenants: Tenants, image: str, who: str
) -> None:
    # given another user's login, or none
    if who == "stranger":
        login(cosign, tenants, tenants.stranger.secret)
    else:
        (Path(cosign.environment["DOCKER_CONFIG"]) / "config.json").unlink()

    # when the image is private, then neither it nor its signatures are shown
    sign = ["sign", *OFFLINE]
    for words in ([*sign, OLD], [*sign, NEW], ["verify", *VERIFY], ["tree"], ["clean", "--force"]):
        refused = cosign(*words, image, check=False)
        assert refused.returncode != 0
        assert f"{DENIED} pull" in refused.stderr
    assert referrers(tenants, image) == []


@pytest.mark.oci(112)
def test_anyone_can_verify_a_public_image_and_only_its_owner_can_sign_it(
    cosign: Program, tenants: Tenants
) -> None:
    # given a public image, signed both ways
    repository = tenants.repository(is_public=True)
    image = f"{tenants.owner.host}/{repository}@{tenants.owner.push_image(repository, '1', LAYER)}"
    for form in (OLD, NEW):
        cosign("sign", *OFFLINE, form, image)
    before = tags(tenants, repository), referrers(tenants, image)

    # when others use their own key, then they can verify, and a push is refused with the reason
    login(cosign, tenants, tenants.stranger.secret)
    cosign("generate-key-pair", "--output-key-prefix", "other")
    for form in (OLD, NEW):
        cosign("verify", *VERIFY, form, image)
        refused = cosign("sign", *OFFLINE, "--key", "other.key", form, image, check=False)
        assert refused.returncode != 0
        assert f"{DENIED} push to {repository}" in refused.stderr
    # cosign prints the error and exits with 0 all the same.
    assert f"{DENIED} delete from {repository}" in cosign("clean", "--force", image).stderr
    assert (tags(tenants, repository), referrers(tenants, image)) == before


def test_a_wrong_password_is_a_readable_error_when_it_is_used(
    cosign: Program, tenants: Tenants, image: str
) -> None:
    login(cosign, tenants, WRONG)
    for words in (["sign", *OFFLINE], ["verify", *VERIFY]):
        assert UNAUTHORIZED in cosign(*words, image, check=False).stderr


def test_private_and_missing_images_look_alike(cosign: Program, image: str, hidden: tuple[str, str]) -> None:
    for name in hidden:
        refused = cosign("verify", *VERIFY, name, check=False)
        repository = name.partition("/")[2].removesuffix(":1")
        assert f"{DENIED} pull from {repository}, or it does not exist" in refused.stderr
    missing = cosign("verify", *VERIFY, image.partition("@")[0] + ":2", check=False)
    assert "MANIFEST_UNKNOWN: this repository has no tag 2: it was never pushed" in missing.stderr
