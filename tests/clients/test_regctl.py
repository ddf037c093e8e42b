"""regctl pushes in chunks, mounts without a source, and resumes cut uploads."""

from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.oci_client import digest_of
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.fixture
def regctl(tmp_path: Path, tenants: Tenants, line: Line) -> Program:
    program = Program("regctl", tmp_path / "home")
    for host in (tenants.owner.host, line.host):
        program("registry", "set", "--tls", "disabled", host)
        program("registry", "login", host, "-u", "x", "--pass-stdin", stdin=tenants.owner.secret or "")
    return program


@pytest.mark.oci(139, 185)
def test_push_list_copy_pull_and_delete(regctl: Program, tenants: Tenants, tmp_path: Path) -> None:
    # given an artifact of one file
    host = tenants.owner.host
    name, other = (f"{host}/{tenants.repository()}" for _ in range(2))
    regctl("artifact", "put", "--artifact-type", "application/example", f"{name}:1", stdin="contents")

    # when it is copied to another repository and out to a folder
    regctl("image", "copy", f"{name}:1", f"{other}:copied")
    regctl("image", "copy", f"{name}:1", f"{name}:2")
    regctl("image", "copy", f"{other}:copied", f"ocidir://{tmp_path}/out:1")

    # then lists, digests and contents are as expected
    assert regctl("tag", "ls", name).stdout.split() == ["1", "2"]
    assert {name, other} <= {f"{host}/{found}" for found in regctl("repo", "ls", host).stdout.split()}
    digests = {
        regctl("image", "digest", copy).stdout
        for copy in (f"{name}:1", f"{name}:2", f"{other}:copied", f"ocidir://{tmp_path}/out:1")
    }
    assert len(digests) == 1
    assert regctl("artifact", "get", f"{other}:copied").stdout == "contents"

    # and a tag is deleted alone, a manifest with its tags
    regctl("tag", "delete", f"{name}:1")
    assert regctl("tag", "ls", name).stdout.split() == ["2"]
    regctl("manifest", "delete", f"{name}@{digests.pop().strip()}")
    assert regctl("tag", "ls", name).stdout.split() == []


@pytest.mark.oci(185)
def test_a_blob_is_uploaded_in_chunks(regctl: Program, tenants: Tenants, line: Line) -> None:
    regctl("registry", "set", "--blob-chunk", "100000", line.host)
    repository, data = tenants.repository(), "0123456789" * 35_000
    line.watch()
    said = regctl("blob", "put", f"{line.host}/{repository}", stdin=data)
    assert said.stdout.strip() == digest_of(data.encode())
    assert sum(request.startswith("PATCH ") for request in line.requests) == 4
    assert tenants.owner.on(repository, "GET", f"blobs/{said.stdout.strip()}").text == data


@pytest.mark.oci(185)
def test_a_mount_without_a_source_becomes_an_upload(
    regctl: Program, tenants: Tenants, line: Line, tmp_path: Path, large: bytes
) -> None:
    # given an image in a folder, whose layer is also in the registry
    source, target = tenants.repository(), tenants.repository()
    tenants.owner.push_image(source, "1", large)
    regctl("image", "copy", f"{line.host}/{source}:1", f"ocidir://{tmp_path}/out:1")

    # when it is pushed with a token for the target only, then the mount becomes an upload
    line.watch()
    regctl("image", "copy", f"ocidir://{tmp_path}/out:1", f"{line.host}/{target}:1")
    assert any("mount=sha256" in request and "from=" not in request for request in line.requests)
    assert line.carried > len(large)
    assert tenants.owner.on(target, "GET", "manifests/1").status_code == 200


@pytest.mark.oci(185)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_push_succeeds_and_a_chunked_one_is_resumed(
    regctl: Program, tenants: Tenants, line: Line, tmp_path: Path, large: bytes, chunked: bool
) -> None:
    if chunked:
        regctl("registry", "set", "--blob-max", "1000000", "--blob-chunk", "1000000", line.host)
    repository, source = tenants.repository(), tmp_path / "large"
    source.write_bytes(large)
    line.cut_after(HALF)
    regctl("artifact", "put", "--file", str(source), f"{line.host}/{repository}:1")
    assert line.cuts == 1
    assert (line.carried < LARGE + HALF) == chunked
    assert tenants.owner.on(repository, "GET", f"blobs/{digest_of(large)}").content == large


def test_a_cut_pull_is_resumed(
    regctl: Program, tenants: Tenants, line: Line, tmp_path: Path, large: bytes
) -> None:
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", large)
    line.cut_after(HALF)
    regctl("image", "copy", f"{line.host}/{repository}:1", f"ocidir://{tmp_path}/out:1")
    assert line.cuts == 1
    assert line.carried < LARGE + HALF
    assert (tmp_path / "out/blobs/sha256" / digest_of(large)[7:]).read_bytes() == large


def test_a_wrong_password_is_a_readable_error(regctl: Program, tenants: Tenants) -> None:
    host = tenants.owner.host
    done = regctl("registry", "login", host, "-u", "x", "--pass-stdin", stdin=WRONG, check=False)
    assert done.returncode != 0
    assert f"failed to ping registry {host}: unauthorized" in done.stderr


def test_private_and_missing_images_look_alike(regctl: Program, hidden: tuple[str, str]) -> None:
    said = {regctl("manifest", "get", name, check=False).stderr.replace(name, "IT") for name in hidden}
    assert said == {"failed to get manifest IT: unauthorized\n"}


def test_a_missing_tag_of_an_own_image_is_reported_as_missing(regctl: Program, tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", b"layer")
    missing = regctl("manifest", "get", f"{tenants.owner.host}/{repository}:2", check=False)
    assert "not found [http 404]" in missing.stderr
    assert "this repository has no tag 2" in missing.stderr
