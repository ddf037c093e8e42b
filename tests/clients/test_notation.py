"""notation signs images and verifies signatures."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import Program
from tests.tenants import Tenants

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


@pytest.fixture
def notation(tmp_path: Path, tenants: Tenants) -> Program:
    """notation with a key that it trusts, and the owner's secret."""
    program = Program("notation", tmp_path / "home", folder=tmp_path)
    program.environment |= {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "NOTATION_USERNAME": "x",
        "NOTATION_PASSWORD": tenants.owner.secret or "",
    }
    program("cert", "generate-test", "--default", SIGNER)
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    program("policy", "import", "--force", "policy.json")
    return program


@pytest.fixture
def image(tenants: Tenants) -> str:
    repository = tenants.repository()
    digest = tenants.owner.push_image(repository, "1", b"layer")
    return f"{tenants.owner.host}/{repository}@{digest}"


def signatures(tenants: Tenants, image: str) -> list[str]:
    """What the registry itself says of who refers to an image: the types."""
    repository, _, digest = image.partition("/")[2].partition("@")
    found = tenants.owner.on(repository, "GET", f"referrers/{digest}").json()["manifests"]
    return [item["artifactType"] for item in found]


@pytest.mark.oci(130, 184)
@pytest.mark.parametrize("tagged", ["true", "false"])
@pytest.mark.parametrize("envelope", ["jws", "cose"])
def test_a_signature_is_found_once_and_verified(
    notation: Program, tenants: Tenants, image: str, tagged: str, envelope: str
) -> None:
    # given an image that nobody has signed
    assert notation("verify", PLAIN, image, check=False).returncode != 0

    # when it is signed, with the tag that old registries need (as is usual) or without
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
def test_two_signatures_are_both_there(notation: Program, tenants: Tenants, image: str) -> None:
    for _ in range(2):
        notation("sign", PLAIN, image)
    assert len(signatures(tenants, image)) == 2
    assert notation("verify", PLAIN, image).returncode == 0


def test_who_may_not_is_refused(notation: Program, tenants: Tenants, image: str) -> None:
    """It asks with HEAD first, whose answer has no words."""
    for secret in (tenants.stranger.secret, "00000000-0000-4000-8000-000000000000"):
        notation.environment["NOTATION_PASSWORD"] = secret or ""
        for command in ("sign", "verify", "ls"):
            refused = notation(command, PLAIN, image, check=False)
            assert refused.returncode != 0
            assert "401" in refused.stderr, command
    login = notation("login", PLAIN, tenants.owner.host, check=False)
    assert "the secret key is unknown, revoked or expired" in login.stderr
    assert signatures(tenants, image) == []
