"""cosign signs and attests, with tags as it used to and with referrers as it does now.

Without the internet: with a key of one's own, and no transparency log.
"""

import json
from pathlib import Path

import pytest

from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

OFFLINE = ["--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--yes"]
UNLOGGED = "--insecure-ignore-tlog=true"
OLD, NEW = "--new-bundle-format=false", "--new-bundle-format=true"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@pytest.fixture
def cosign(tmp_path: Path, tenants: Tenants) -> Program:
    """cosign with a key pair, logged in as the owner."""
    program = Program("cosign", tmp_path / "home", folder=tmp_path)
    program.environment |= {"COSIGN_PASSWORD": "", "TUF_ROOT": str(tmp_path / "tuf")}
    program("generate-key-pair")
    program("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=tenants.owner.secret or "")
    return program


@pytest.fixture
def repository(tenants: Tenants) -> str:
    return tenants.repository()


@pytest.fixture
def image(tenants: Tenants, repository: str) -> str:
    digest = tenants.owner.push_image(repository, "1", b"layer")
    return f"{tenants.owner.host}/{repository}@{digest}"


def referrers(tenants: Tenants, image: str) -> list[str]:
    """The types that the registry itself lists."""
    repository, _, digest = image.partition("/")[2].partition("@")
    found = tenants.owner.on(repository, "GET", f"referrers/{digest}").json()["manifests"]
    return [item["artifactType"] for item in found]


def tags(tenants: Tenants, repository: str) -> list[str]:
    found: list[str] = tenants.owner.on(repository, "GET", "tags/list").json()["tags"]
    return found


@pytest.mark.oci(186)
def test_an_old_signature_is_a_tag(cosign: Program, tenants: Tenants, repository: str, image: str) -> None:
    # when an image is signed the old way
    cosign("sign", *OFFLINE, OLD, image)

    # then the signature is under the tag that is made of the digest, and is verified
    expected = image.partition("@")[2].replace(":", "-") + ".sig"
    assert tags(tenants, repository) == ["1", expected]
    verified = cosign("verify", "--key", "cosign.pub", UNLOGGED, OLD, image)
    assert json.loads(verified.stdout)[0]["critical"]["image"]["docker-manifest-digest"] in image
    assert "Signatures for an image tag" in cosign("tree", image).stdout


@pytest.mark.oci(186)
def test_a_new_signature_is_a_bundle_that_refers_to_the_image(
    cosign: Program, tenants: Tenants, repository: str, image: str
) -> None:
    # when an image is signed the new way
    cosign("sign", *OFFLINE, NEW, image)

    # then the bundle is a referrer, no tag is added, and it is verified
    assert referrers(tenants, image) == [BUNDLE]
    assert tags(tenants, repository) == ["1"]
    cosign("verify", "--key", "cosign.pub", UNLOGGED, NEW, image)
    assert "sha256:" in cosign("tree", image).stdout.partition(image)[2]


@pytest.mark.parametrize("form", [OLD, NEW])
def test_attestations_are_found_and_verified(cosign: Program, tmp_path: Path, image: str, form: str) -> None:
    (tmp_path / "predicate.json").write_text('{"scanned": true}')
    words = ["--type", "https://example.test/scan"]
    cosign("attest", *OFFLINE, form, *words, "--predicate", "predicate.json", image)
    cosign("verify-attestation", "--key", "cosign.pub", UNLOGGED, form, *words, image)


@pytest.mark.parametrize("form", [OLD, NEW])
def test_what_another_key_signed_is_not_verified(
    cosign: Program, tmp_path: Path, image: str, form: str
) -> None:
    cosign("sign", *OFFLINE, form, image)
    cosign("generate-key-pair", "--output-key-prefix", "other")
    verified = cosign("verify", "--key", "other.pub", UNLOGGED, form, image, check=False)
    assert verified.returncode != 0


def test_a_copy_takes_its_signatures_along(
    cosign: Program, tenants: Tenants, repository: str, image: str
) -> None:
    cosign("sign", *OFFLINE, OLD, image)
    target = f"{tenants.owner.host}/{tenants.repository()}"
    cosign("copy", image, f"{target}:copied")
    digest = image.partition("@")[2]
    cosign("verify", "--key", "cosign.pub", UNLOGGED, OLD, f"{target}@{digest}")


def test_who_may_not_is_refused_in_words(cosign: Program, tenants: Tenants, image: str) -> None:
    # given somebody else's login
    cosign("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=tenants.stranger.secret or "")
    for words in (
        ["sign", *OFFLINE, OLD],
        ["sign", *OFFLINE, NEW],
        ["verify", "--key", "cosign.pub", UNLOGGED],
    ):
        refused = cosign(*words, image, check=False)
        assert refused.returncode != 0
        assert "DENIED: requested access to the resource is denied: you may not pull" in refused.stderr
    assert referrers(tenants, image) == []
