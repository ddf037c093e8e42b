"""crane pushes, lists tags, copies and deletes."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.fixture
def crane(tmp_path: Path, tenants: Tenants) -> Program:
    program = Program("crane", tmp_path / "home")
    program(
        "auth", "login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=tenants.owner.secret or ""
    )
    return program


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"world"))
    return path


@pytest.mark.oci(139, 183)
def test_push_list_copy_and_delete(crane: Program, tenants: Tenants, tarball: Path) -> None:
    # given an image that crane made of a tarball and pushed
    name = f"{tenants.owner.host}/{tenants.repository()}"
    crane("append", "--new_layer", str(tarball), "--new_tag", f"{name}:1")
    digest = crane("digest", f"{name}:1").stdout.strip()

    # when it is tagged again and copied elsewhere
    crane("tag", f"{name}:1", "2")
    other = f"{tenants.owner.host}/{tenants.repository()}"
    crane("copy", f"{name}:1", f"{other}:copied")

    # then lists, digests and contents are as expected
    assert crane("ls", name).stdout.split() == ["1", "2"]
    assert crane("digest", f"{other}:copied").stdout.strip() == digest
    assert json.loads(crane("manifest", f"{other}:copied").stdout)["schemaVersion"] == 2
    crane("validate", "--remote", f"{other}:copied")

    # and deleting by digest takes the tags along
    crane("delete", f"{name}@{digest}")
    assert crane("ls", name).stdout.split() == []
    assert crane("digest", f"{name}:1", check=False).returncode != 0


def test_a_refusal_is_readable(tmp_path: Path, tenants: Tenants) -> None:
    stranger = Program("crane", tmp_path / "stranger")
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    refused = stranger("manifest", f"{tenants.owner.host}/{repository}:latest", check=False)
    assert refused.returncode != 0
    assert "requested access to the resource is denied" in refused.stderr
