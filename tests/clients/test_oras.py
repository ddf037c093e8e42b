"""oras stores artifacts of any type, and finds those that are attached to them."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

DENIED = "Error response from registry: denied: requested access to the resource is denied"


def login(oras: Program, host: str, secret: str, *, check: bool = True) -> str:
    done = oras("login", "--plain-http", host, "-u", "x", "--password-stdin", stdin=secret, check=check)
    return done.stdout + done.stderr


@pytest.fixture
def oras(tmp_path: Path, tenants: Tenants, line: Line) -> Program:
    program = Program("oras", tmp_path / "home", folder=tmp_path)
    for host in (tenants.owner.host, line.host):
        assert "Login Succeeded" in login(program, host, tenants.owner.secret or "")
    return program


@pytest.fixture
def artifact(oras: Program, tenants: Tenants, tmp_path: Path) -> str:
    """`host/repository` of an artifact with one file and the tag 1."""
    (tmp_path / "file").write_text("contents")
    name = f"{tenants.owner.host}/{tenants.repository()}"
    oras("push", "--plain-http", f"{name}:1", "file:text/plain")
    return name


def tags(oras: Program, name: str) -> list[str]:
    return oras("repo", "tags", "--plain-http", name).stdout.split()


def discover(oras: Program, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(oras("discover", "--plain-http", "--format", "json", name).stdout)
    return found


@pytest.mark.oci(139, 184)
def test_push_list_copy_pull_and_delete(
    oras: Program, artifact: str, tenants: Tenants, tmp_path: Path
) -> None:
    # when an artifact is tagged again, copied elsewhere and pulled from there
    host, other = tenants.owner.host, f"{tenants.owner.host}/{tenants.repository()}"
    oras("tag", "--plain-http", f"{artifact}:1", "2", "3")
    copied = oras("cp", "--from-plain-http", "--to-plain-http", f"{artifact}:1", f"{other}:copied")
    oras("pull", "--plain-http", f"{other}:copied", "-o", "pulled")

    # then no blob was sent for the copy, and lists and contents are as expected
    assert copied.stdout.count("Mounted") == 2
    assert (tmp_path / "pulled/file").read_text() == "contents"
    assert tags(oras, artifact) == ["1", "2", "3"]
    catalog = oras("repo", "ls", "--plain-http", host).stdout.split()
    assert {artifact, other} <= {f"{host}/{name}" for name in catalog}

    # and deleting one tag deletes the others too, because oras deletes by digest
    oras("manifest", "delete", "--force", "--plain-http", f"{artifact}:2")
    assert tags(oras, artifact) == []


@pytest.mark.oci(132)
def test_attached_artifacts_are_listed_at_every_depth_and_copied(
    oras: Program, artifact: str, tenants: Tenants
) -> None:
    # given an artifact, one that is attached to it, and one that is attached to the second
    attach = ["attach", "--plain-http", "--format", "json", "--artifact-type"]
    first = json.loads(oras(*attach, "application/sbom", f"{artifact}:1", "file:text/plain").stdout)
    oras(*attach, "application/signature", f"{artifact}@{first['digest']}", "file:text/plain")

    # when all are copied
    other = f"{tenants.owner.host}/{tenants.repository()}"
    oras("cp", "--recursive", "--from-plain-http", "--to-plain-http", f"{artifact}:1", f"{other}:1")

    # then both places show the same
    for name in (artifact, other):
        tree = json.dumps(discover(oras, f"{name}:1"))
        assert tree.index("application/sbom") < tree.index("application/signature")


def test_a_cut_push_fails_and_succeeds_when_repeated(
    oras: Program, tenants: Tenants, line: Line, tmp_path: Path, large: bytes
) -> None:
    (tmp_path / "large").write_bytes(large)
    name = f"{line.host}/{tenants.repository()}:1"
    line.cut_after(HALF)
    cut = oras("push", "--plain-http", name, "large", check=False)
    assert (cut.returncode != 0, line.cuts) == (True, 1)
    oras("push", "--plain-http", name, "large")
    # Its upload is one request, which starts again with the first byte.
    assert line.carried > LARGE + HALF
    oras("pull", "--plain-http", name, "-o", "pulled")
    assert (tmp_path / "pulled/large").read_bytes() == large


def test_a_cut_pull_succeeds_when_repeated(
    oras: Program, tenants: Tenants, line: Line, tmp_path: Path, large: bytes
) -> None:
    (tmp_path / "large").write_bytes(large)
    name = f"{line.host}/{tenants.repository()}:1"
    oras("push", "--plain-http", name, "large")
    line.cut_after(HALF)
    cut = oras("pull", "--plain-http", name, "-o", "pulled", check=False)
    assert (cut.returncode != 0, line.cuts) == (True, 1)
    oras("pull", "--plain-http", name, "-o", "pulled")
    assert line.carried > LARGE + HALF
    assert (tmp_path / "pulled/large").read_bytes() == large


def test_a_wrong_password_is_a_readable_error(oras: Program, tenants: Tenants) -> None:
    said = login(oras, tenants.owner.host, WRONG, check=False)
    assert "Error response from registry: unauthorized: the secret key is unknown, revoked" in said
    assert said.endswith("use one of your API keys as the password\n")


def path(name: str) -> str:
    """The repository of a full name, without host and tag."""
    return name.partition("/")[2].rpartition(":")[0]


def test_private_and_missing_artifacts_look_alike(oras: Program, hidden: tuple[str, str]) -> None:
    said = {
        oras("pull", "--plain-http", name, check=False)
        .stderr.replace(path(name), "IT")
        .replace(path(name).partition("/")[0], "NAMESPACE")
        for name in hidden
    }
    assert len(said) == 1, said
    assert said.pop().startswith(f"{DENIED}: you may not pull from IT, or it does not exist")
    for name in hidden:
        # oras sends HEAD, whose response has no body.
        listed = oras("repo", "tags", "--plain-http", name, check=False)
        assert listed.stderr.endswith("response status code 401: Unauthorized\n")


def test_a_missing_tag_of_an_own_artifact_is_reported_as_missing(oras: Program, artifact: str) -> None:
    missing = oras("pull", "--plain-http", f"{artifact}:2", check=False)
    assert missing.stderr == f"Error response from registry: {artifact}:2: not found\n"
