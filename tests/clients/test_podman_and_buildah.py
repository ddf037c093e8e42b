"""podman and buildah build, push, pull and run; both use the same library for transfers."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG, push_image, tar
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.services.tools import missing, require_tool
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

HELLO = ["/bin/busybox", "echo", "hello from stowage"]
# For machines that do not allow any limit to be set, not even to its present value.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
PLAIN = "--tls-verify=false"


class Engine:
    """podman or buildah with its own storage and logins."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.program = Program(name, folder / "home")
        self.program.environment["REGISTRY_AUTH_FILE"] = str(folder / "auth.json")
        (folder / "auth.json").write_text("{}")
        self.options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        if name == "podman":
            self.options += ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"]

    def __call__(self, *words: str, stdin: str = "", check: bool = True) -> str:
        """Run it and return its output."""
        done = self.program(*self.options, *words, stdin=stdin, check=check)
        assert check or done.returncode != 0, f"{words} should have failed: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def login(self, host: str, secret: str, *, check: bool = True) -> str:
        return self("login", PLAIN, "-u", "x", "--password-stdin", host, stdin=secret, check=check)


@pytest.fixture
def make_engine(tenants: Tenants, line: Line) -> Iterator[Callable[[str], Engine]]:
    """Engines that are logged in; the test deletes them completely at its end."""
    # Short, and so not a folder of pytest's: it contains sockets, whose paths are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="stowage-engine-"))
    made: list[Engine] = []

    def make(name: str) -> Engine:
        if os.geteuid() != 0:
            missing(f"{name} and root")
        engine = Engine(name, folder)
        made.append(engine)
        for host in (tenants.owner.host, line.host):
            assert "Login Succeeded!" in engine.login(host, tenants.owner.secret or "")
        return engine

    yield make
    for engine in made:
        engine("rmi", "--all", "--force")
    shutil.rmtree(folder)


@pytest.fixture(params=["podman", "buildah"])
def engine(request: pytest.FixtureRequest, make_engine: Callable[[str], Engine]) -> Engine:
    return make_engine(str(request.param))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The build context of an image that prints hello."""
    folder = tmp_path / "context"
    folder.mkdir()
    shutil.copyfile(require_tool("busybox"), folder / "busybox")
    (folder / "busybox").chmod(0o755)
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY busybox /bin/busybox\nCMD {json.dumps(HELLO)}\n")
    return folder


@pytest.mark.oci(182)
def test_a_built_image_is_pushed_copied_pulled_and_runs(
    engine: Engine, tenants: Tenants, context: Path
) -> None:
    # given an image
    name, other = (f"{tenants.owner.host}/{tenants.repository()}:1" for _ in range(2))
    engine("build", "--isolation", "chroot", "--tag", name, str(context))

    # when it is pushed to two repositories, removed and pulled
    engine("push", PLAIN, name)
    engine("push", PLAIN, name, f"docker://{other}")
    engine("rmi", "--all", "--force")
    engine("pull", PLAIN, other)

    # then it runs
    assert other.removesuffix(":1") in engine("images")
    if engine.name == "podman":
        said = engine("run", "--rm", "--network", "none", *LIMITS, other)
    else:
        container = engine.program(*engine.options, "from", PLAIN, other).stdout.strip()
        said = engine("run", "--isolation", "chroot", container, "--", *HELLO)
        engine("rm", container)
    assert said == "hello from stowage\n"


def test_podman_lists_tags_and_repositories(
    make_engine: Callable[[str], Engine], tenants: Tenants, hidden: tuple[str, str]
) -> None:
    podman, repository = make_engine("podman"), tenants.repository()
    for tag in ("1", "2"):
        tenants.owner.push_image(repository, tag, b"layer")
    name = f"{tenants.owner.host}/{repository}"
    assert podman("search", PLAIN, "--list-tags", name).split() == ["NAME", "TAG", name, "1", name, "2"]
    found = podman("search", PLAIN, "--limit", "1000", "--format", "{{.Name}}", f"{tenants.owner.host}/")
    assert name in found.split()
    assert hidden[0].removesuffix(":1") not in found.split()


def test_a_cut_pull_fails_and_succeeds_when_repeated(
    engine: Engine, tenants: Tenants, line: Line, large: bytes
) -> None:
    repository = tenants.repository()
    push_image(tenants, repository, "1", large)
    line.cut_after(HALF)
    engine("pull", PLAIN, f"{line.host}/{repository}:1", check=False)
    assert line.cuts == 1
    engine("pull", PLAIN, f"{line.host}/{repository}:1")
    assert line.carried > LARGE + HALF


def test_a_cut_push_fails_and_succeeds_when_repeated(
    engine: Engine, tenants: Tenants, line: Line, large: bytes
) -> None:
    # given an image from another registry, from podman's point of view: no blob is mounted
    source, target = tenants.repository(), tenants.repository()
    push_image(tenants, source, "1", large)
    name, other = f"{tenants.owner.host}/{source}:1", f"{line.host}/{target}:1"
    engine("pull", PLAIN, name)

    # when its push is cut, then it fails, and succeeds when repeated
    line.cut_after(HALF)
    engine("push", PLAIN, name, f"docker://{other}", check=False)
    assert line.cuts == 1
    engine("push", PLAIN, name, f"docker://{other}")
    assert line.carried > LARGE + HALF
    engine("pull", PLAIN, other)


def test_errors_are_readable(engine: Engine, tenants: Tenants, hidden: tuple[str, str]) -> None:
    # a wrong password
    wrong = engine.login(tenants.owner.host, WRONG, check=False)
    assert f'logging into "{tenants.owner.host}": invalid username/password' in wrong

    # private and missing images look alike, for a pull and for a push
    repository = tenants.repository()
    push_image(tenants, repository, "1", tar(b"contents"))
    own = f"{tenants.owner.host}/{repository}"
    engine("pull", PLAIN, f"{own}:1")
    for name in hidden:
        assert "denied: requested access to the resource is denied" in engine(
            "pull", PLAIN, name, check=False
        )
        pushed = engine("push", PLAIN, f"{own}:1", f"docker://{name}", check=False)
        assert "denied: requested access to the resource is denied" in pushed

    # a missing tag of the caller's own image is reported as missing
    assert "manifest unknown: this repository has no tag 2" in engine("pull", PLAIN, f"{own}:2", check=False)
