"""notation signs images and verifies signatures."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import WRONG
from tests.clients.programs import Program
from tests.tenants import LAYER, Tenants

pytestmark = pytest.mark.clients

PLAIN = "--insecure-registry"
SIGNER = "signer.test"
POLICY = {
    "version": "1.0",
    "trustPolicies": [
        {
            "name": "all",
            "registryScopes": ["*"],
            "signatureVerification": {"level": "strict"},
            "trustStores": [f"ca:{SIGNER}"],
            "trustedIdentities": ["*"],
        }
    ],
}


# Implements the protocol of docker's credential helpers; stores a single login in a file.
CREDENTIAL_STORE = """#!/bin/sh
cd "$HOME"
case "$1" in
store) cat >login.json ;;
get) cat login.json 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm -f login.json ;;
list) echo "{}" ;;
esac
"""


def make_notation(folder: Path) -> Program:
    """notation with its own certificate, which is the only one that it trusts; not logged in."""
    folder.mkdir()
    program = Program("notation", folder / "home", folder=folder)
    program.environment["XDG_CONFIG_HOME"] = str(folder / "config")
    program("cert", "generate-test", "--default", SIGNER)
    (folder / "policy.json").write_text(json.dumps(POLICY))
    program("policy", "import", "--force", "policy.json")
    return program


def become(notation: Program, secret: str | None) -> Program:
    """Set the secret for all later commands."""
    notation.environment |= {"NOTATION_USERNAME": "x", "NOTATION_PASSWORD": secret or ""}
    return notation


def login(notation: Program, host: str, secret: str | None, *, check: bool = True) -> str:
    words = ["login", PLAIN, host, "-u", "x", "--password-stdin"]
    done = notation(*words, stdin=secret or "", check=check)
    return done.stdout + done.stderr


@pytest.fixture
def notation(tmp_path: Path, tenants: Tenants) -> Program:
    """notation with a key that it trusts, and the owner's secret."""
    return become(make_notation(tmp_path / "notation"), tenants.owner.secret)


@pytest.fixture
def image(tenants: Tenants) -> str:
    repository = tenants.repository()
    digest = tenants.owner.push_image(repository, "1", LAYER)
    return f"{tenants.owner.host}/{repository}@{digest}"


def signatures(tenants: Tenants, image: str) -> list[str]:
    """The artifact types in the registry's own list of referrers."""
    repository, _, digest = image.partition("/")[2].partition("@")
    found = tenants.owner.on(repository, "GET", f"referrers/{digest}").json()["manifests"]
    return [item["artifactType"] for item in found]


@pytest.mark.oci(130, 184)
@pytest.mark.parametrize("tagged", ["true", "false"])
@pytest.mark.parametrize("envelope", ["jws", "cose"])
def test_a_signature_is_found_once_and_verified(
    notation: Program, tenants: Tenants, image: str, tagged: str, envelope: str
) -> None:
    # given an image without a signature
    assert notation("verify", PLAIN, image, check=False).returncode != 0

    # when it is signed, with the tag that old registries need (the default) or without
    words = (f"--force-referrers-tag={tagged}", "--signature-format", envelope)
    notation("sign", PLAIN, *words, image)

    # then the registry lists the signature once, and notation finds, shows and trusts it
    assert signatures(tenants, image) == ["application/vnd.cncf.notary.signature"]
    assert notation("ls", PLAIN, image).stdout.count("sha256:") == 2
    shown = json.loads(notation("inspect", PLAIN, "--output", "json", image).stdout)
    assert [item["mediaType"] for item in shown["Signatures"]] == [
        {"jws": "application/jose+json", "cose": "application/cose"}[envelope]
    ]
    assert "Successfully verified signature" in notation("verify", PLAIN, image).stdout


@pytest.mark.oci(184)
def test_two_signatures_are_both_listed(notation: Program, tenants: Tenants, image: str) -> None:
    for _ in range(2):
        notation("sign", PLAIN, image)
    assert len(signatures(tenants, image)) == 2
    assert notation("verify", PLAIN, image).returncode == 0


def test_a_signature_with_an_unknown_certificate_is_not_verified(
    notation: Program, tenants: Tenants, tmp_path: Path, image: str
) -> None:
    # given a signature, and a user who trusts another certificate of the same name
    notation("sign", PLAIN, image)
    other = become(make_notation(tmp_path / "other"), tenants.owner.secret)
    refused = other("verify", PLAIN, image, check=False)
    assert refused.returncode != 0
    assert "signature verification failed for all the signatures" in refused.stderr


def test_a_login_is_stored_in_dockers_credential_store(tenants: Tenants, tmp_path: Path, image: str) -> None:
    # given no secret in the environment, and a store that docker's settings name
    notation, host = make_notation(tmp_path / "notation"), tenants.owner.host
    assert "a credentials store is required" in login(notation, host, tenants.owner.secret, check=False)
    (tmp_path / "docker-credential-test").write_text(CREDENTIAL_STORE)
    (tmp_path / "docker-credential-test").chmod(0o755)
    notation.environment["PATH"] += f":{tmp_path}"
    (Path(notation.environment["DOCKER_CONFIG"]) / "config.json").write_text('{"credsStore": "test"}')

    # when the user logs in, then signing works until the logout
    assert "Login Succeeded" in login(notation, host, tenants.owner.secret)
    notation("sign", PLAIN, image)
    assert "Successfully verified signature" in notation("verify", PLAIN, image).stdout
    notation("logout", host)
    assert "401: Unauthorized" in notation("verify", PLAIN, image, check=False).stderr


def test_an_unauthorized_caller_is_refused(notation: Program, tenants: Tenants, image: str) -> None:
    """notation sends HEAD first, whose response has no body."""
    for secret in (tenants.stranger.secret, WRONG):
        become(notation, secret)
        for command in ("sign", "verify", "ls"):
            refused = notation(command, PLAIN, image, check=False)
            assert refused.returncode != 0
            assert "401" in refused.stderr, command
    said = login(notation, tenants.owner.host, WRONG, check=False)
    assert "unauthorized: the secret key is unknown, revoked or expired: use one of your API keys" in said
    assert signatures(tenants, image) == []


@pytest.mark.oci(112)
def test_anyone_can_verify_a_public_image_and_only_its_owner_can_sign_it(
    notation: Program, tenants: Tenants
) -> None:
    # given a public image with a signature
    repository = tenants.repository(is_public=True)
    image = f"{tenants.owner.host}/{repository}@{tenants.owner.push_image(repository, '1', LAYER)}"
    notation("sign", PLAIN, image)

    # when others use their own key, then they can verify, and a push is refused with the reason
    become(notation, tenants.stranger.secret)
    assert "Successfully verified signature" in notation("verify", PLAIN, image).stdout
    refused = notation("sign", PLAIN, image, check=False)
    assert refused.returncode != 0
    assert f"denied: requested access to the resource is denied: you may not push to {repository}" in (
        refused.stderr
    )
    assert len(signatures(tenants, image)) == 1


def test_private_and_missing_images_look_alike(
    notation: Program, image: str, hidden: tuple[str, str]
) -> None:
    said = set()
    for name in hidden:
        repository = name.partition("/")[2].removesuffix(":1")
        said.add(notation("sign", PLAIN, name, check=False).stderr.replace(repository, "IT"))
    assert len(said) == 1, said
    assert said.pop().endswith("response status code 401: Unauthorized\n")
    own = image.partition("@")[0]
    assert f"{own}:2: not found" in notation("verify", PLAIN, f"{own}:2", check=False).stderr
