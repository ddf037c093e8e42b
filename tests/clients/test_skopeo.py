"""skopeo copies an image in and out, and its digests stay what they were."""

import json
from pathlib import Path

import pytest

from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.fixture
def skopeo(tmp_path: Path) -> Program:
    return Program("skopeo", tmp_path / "home")


@pytest.mark.oci(182)
def test_an_image_is_copied_in_and_out_unchanged(skopeo: Program, tenants: Tenants, tmp_path: Path) -> None:
    # given an image in the registry
    source, target = tenants.repository(), tenants.repository()
    digest = tenants.owner.push_image(source, "1", b"a layer", b"another")
    host, login = tenants.owner.host, ["--creds", f"nologin:{tenants.owner.secret}"]
    out_of, into = (
        ["--src-tls-verify=false", "--src-creds", login[1]],
        ["--dest-tls-verify=false", "--dest-creds", login[1]],
    )

    # when it is copied to a folder, back into another repository, and from there to a second folder
    skopeo("copy", *out_of, f"docker://{host}/{source}:1", f"dir:{tmp_path}/one")
    skopeo("copy", "--preserve-digests", *into, f"dir:{tmp_path}/one", f"docker://{host}/{target}:1")
    skopeo("copy", *out_of, f"docker://{host}/{target}:1", f"dir:{tmp_path}/two")

    # then everything is the same
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    inspected = skopeo("inspect", "--tls-verify=false", *login, f"docker://{host}/{target}:1")
    assert json.loads(inspected.stdout)["Digest"] == digest


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.oci(139, 140)
def test_an_image_is_deleted(skopeo: Program, tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", b"layer")
    name = f"docker://{tenants.owner.host}/{repository}:1"
    skopeo("delete", "--tls-verify=false", "--creds", f"x:{tenants.owner.secret}", name)
    assert tenants.owner.on(repository, "GET", "manifests/1").status_code == 404


def test_a_refusal_is_readable(skopeo: Program, tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    name = f"docker://{tenants.owner.host}/{repository}:latest"
    refused = skopeo("inspect", "--tls-verify=false", "--no-creds", name, check=False)
    assert refused.returncode != 0
    assert "denied" in refused.stderr or "unauthorized" in refused.stderr
    tenants.set_image(repository, visibility="public")
    skopeo("inspect", "--tls-verify=false", "--no-creds", "--raw", name)
