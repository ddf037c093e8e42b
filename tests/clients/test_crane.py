"""crane pushes, lists tags, copies and deletes."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG, push_image
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.fixture
def crane(tmp_path: Path, tenants: Tenants, line: Line) -> Program:
    program = Program("crane", tmp_path / "home")
    for host in (tenants.owner.host, line.host):
        login(program, host, tenants.owner.secret or "")
    return program


def login(crane: Program, host: str, secret: str) -> None:
    """crane's login only stores the secret."""
    crane("auth", "login", host, "-u", "x", "--password-stdin", stdin=secret)


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"world"))
    return path


@pytest.mark.oci(120, 121, 139, 183)
def test_push_list_copy_and_delete(crane: Program, tenants: Tenants, tarball: Path) -> None:
    # given an image that crane has created from a tarball and pushed
    name = f"{tenants.owner.host}/{tenants.repository()}"
    crane("append", "--new_layer", str(tarball), "--new_tag", f"{name}:1")
    digest = crane("digest", f"{name}:1").stdout.strip()

    # when it is tagged again and copied elsewhere
    crane("tag", f"{name}:1", "2")
    other = f"{tenants.owner.host}/{tenants.repository()}"
    crane("copy", f"{name}:1", f"{other}:copied")

    # then lists, digests and contents are as expected
    assert crane("ls", name).stdout.split() == ["1", "2"]
    catalog = crane("catalog", tenants.owner.host).stdout.split()
    assert {name, other} <= {f"{tenants.owner.host}/{found}" for found in catalog}
    assert crane("digest", f"{other}:copied").stdout.strip() == digest
    assert json.loads(crane("manifest", f"{other}:copied").stdout)["schemaVersion"] == 2
    crane("validate", "--remote", f"{other}:copied")

    # and deleting by digest deletes the tags too
    crane("delete", f"{name}@{digest}")
    assert crane("ls", name).stdout.split() == []
    assert crane("digest", f"{name}:1", check=False).returncode != 0


def test_a_cut_pull_fails_and_succeeds_when_repeated(
    crane: Program, tenants: Tenants, line: Line, large: bytes, tmp_path: Path
) -> None:
    repository = tenants.repository()
    push_image(tenants, repository, "1", large)
    words = ["pull", "--format", "oci", f"{line.host}/{repository}:1", str(tmp_path / "out")]
    line.cut_after(HALF)
    assert crane(*words, check=False).returncode != 0
    crane(*words)
    assert line.cuts == 1
    assert line.carried > LARGE + HALF


@pytest.mark.oci(183)
def test_a_cut_push_is_retried_by_crane(
    crane: Program, tenants: Tenants, line: Line, large: bytes, tmp_path: Path
) -> None:
    # given an image in a folder
    source, target = tenants.repository(), tenants.repository()
    digest = push_image(tenants, source, "1", large)
    crane("pull", "--format", "oci", f"{line.host}/{source}:1", str(tmp_path / "out"))

    # when its push is cut, then crane retries
    line.cut_after(HALF)
    pushed = crane("push", str(tmp_path / "out"), f"{line.host}/{target}:1")
    assert "retrying" in pushed.stderr
    assert line.cuts == 1
    assert line.carried > LARGE + HALF
    assert tenants.owner.on(target, "GET", "manifests/1").headers["docker-content-digest"] == digest


def test_a_wrong_password_is_refused_at_first_use(crane: Program, tenants: Tenants) -> None:
    login(crane, tenants.owner.host, WRONG)
    refused = crane("ls", f"{tenants.owner.host}/{tenants.repository()}", check=False)
    assert (
        "UNAUTHORIZED: the secret key is unknown, revoked or expired: use one of your API keys"
        in refused.stderr
    )


def test_private_and_missing_images_look_alike(
    crane: Program, tenants: Tenants, hidden: tuple[str, str]
) -> None:
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", b"layer")
    own = f"{tenants.owner.host}/{repository}"
    for name in hidden:
        for words in (["manifest", name], ["ls", name.removesuffix(":1")], ["delete", name]):
            refused = crane(*words, check=False).stderr
            assert "DENIED: requested access to the resource is denied: you may not" in refused
        # crane sends HEAD first, whose response has no body.
        assert "unexpected status code 401" in crane("copy", f"{own}:1", name, check=False).stderr
    missing = crane("manifest", f"{own}:2", check=False).stderr
    assert "MANIFEST_UNKNOWN: this repository has no tag 2: it was never pushed" in missing


def test_an_anonymous_caller_gets_a_readable_error(tmp_path: Path, tenants: Tenants) -> None:
    stranger = Program("crane", tmp_path / "stranger")
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    refused = stranger("manifest", f"{tenants.owner.host}/{repository}:latest", check=False)
    assert refused.returncode != 0
    assert "requested access to the resource is denied" in refused.stderr
