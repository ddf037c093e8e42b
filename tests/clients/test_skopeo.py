"""skopeo copies an image in and out, and its digests do not change."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG, push_image
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


COPY = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
DENIED = "denied: requested access to the resource is denied"


@pytest.fixture
def skopeo(tmp_path: Path) -> Program:
    program = Program("skopeo", tmp_path / "home")
    program.environment["REGISTRY_AUTH_FILE"] = str(tmp_path / "auth.json")
    (tmp_path / "auth.json").write_text("{}")
    return program


@pytest.fixture
def logged_in(skopeo: Program, tenants: Tenants, line: Line) -> Program:
    for host in (tenants.owner.host, line.host):
        login(skopeo, host, tenants.owner.secret or "")
    return skopeo


def login(skopeo: Program, host: str, secret: str, *, check: bool = True) -> str:
    words = ["login", "--tls-verify=false", "-u", "x", "--password-stdin", host]
    return skopeo(*words, stdin=secret, check=check).stderr


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


@pytest.mark.oci(120, 139, 182)
def test_tags_are_listed_copied_by_mount_and_deleted(
    logged_in: Program, tenants: Tenants, line: Line, large: bytes, tmp_path: Path
) -> None:
    # given two images whose blobs skopeo has in its cache
    source, target = tenants.repository(), tenants.repository()
    push_image(tenants, source, "1", large)
    push_image(tenants, source, "2", large + b"\0" * 512)
    logged_in(*COPY, f"docker://{line.host}/{source}:1", f"oci:{tmp_path}/out:1")

    # when one is pushed to the other repository, then its layer is mounted
    line.watch()
    logged_in(*COPY, f"oci:{tmp_path}/out:1", f"docker://{line.host}/{target}:1")
    assert line.carried < HALF

    # and lists are as expected, also after a deletion
    name = f"docker://{line.host}/{source}"
    listed = json.loads(logged_in("list-tags", "--tls-verify=false", name).stdout)
    assert listed["Tags"] == ["1", "2"]
    logged_in("delete", "--tls-verify=false", f"{name}:1")
    listed = json.loads(logged_in("list-tags", "--tls-verify=false", name).stdout)
    assert listed["Tags"] == ["2"]


def test_cut_transfers_succeed_when_repeated(
    logged_in: Program, tenants: Tenants, line: Line, large: bytes, tmp_path: Path
) -> None:
    source, target = tenants.repository(), tenants.repository()
    push_image(tenants, source, "1", large)
    # The second host is another registry for skopeo: it does not try to mount.
    pull = [*COPY, f"docker://{line.host}/{source}:1", f"oci:{tmp_path}/out:1"]
    push = [*COPY, f"oci:{tmp_path}/out:1", f"docker://localhost:{line.host.partition(':')[2]}/{target}:1"]
    login(logged_in, push[-1].removeprefix("docker://").partition("/")[0], tenants.owner.secret or "")

    for transfer in (pull, push):
        line.cut_after(HALF)
        cut = logged_in(*transfer, check=False)
        assert (cut.returncode != 0, line.cuts) == (True, 1)
        logged_in(*transfer)
        # Both start from the beginning.
        assert line.carried > LARGE + HALF


def test_a_wrong_password_is_a_readable_error(skopeo: Program, tenants: Tenants) -> None:
    assert "invalid username/password" in login(skopeo, tenants.owner.host, WRONG, check=False)


def test_private_and_missing_images_look_alike(
    logged_in: Program, tenants: Tenants, hidden: tuple[str, str]
) -> None:
    own = tenants.repository()
    tenants.owner.push_image(own, "1", b"layer")
    own = f"docker://{tenants.owner.host}/{own}"
    for name in (f"docker://{name}" for name in hidden):
        for words in (
            ["inspect", "--tls-verify=false", name],
            ["list-tags", "--tls-verify=false", name.removesuffix(":1")],
            [*COPY, f"{own}:1", name],
        ):
            assert DENIED in logged_in(*words, check=False).stderr
        deleted = logged_in("delete", "--tls-verify=false", name, check=False)
        assert "requested access to the resource is denied" in deleted.stderr
    missing = logged_in("inspect", "--tls-verify=false", f"{own}:2", check=False)
    assert "manifest unknown: this repository has no tag 2" in missing.stderr


def test_an_anonymous_caller_gets_a_readable_error_until_the_image_is_public(
    skopeo: Program, tenants: Tenants
) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    name = f"docker://{tenants.owner.host}/{repository}:latest"
    refused = skopeo("inspect", "--tls-verify=false", "--no-creds", name, check=False)
    assert refused.returncode != 0
    assert DENIED in refused.stderr
    tenants.set_image(repository, visibility="public")
    skopeo("inspect", "--tls-verify=false", "--no-creds", "--raw", name)
