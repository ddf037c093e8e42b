"""containerd, with Debian's client and with a current one; Kubernetes pulls with the same code."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG, push_image, tar
from tests.clients.containerd import running_containerd
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

DENIED = "repository does not exist or may require authorization: server message: insufficient_scope"


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    with running_containerd() as socket:
        yield socket


class Ctr:
    """`ctr("pull", name)` is `ctr images pull ...`, over plain HTTP."""

    def __init__(self, program: Program, socket: Path, secret: str, more: list[str]) -> None:
        self.program = program
        self.socket = str(socket)
        self.secret = secret
        self.more = more

    def __call__(self, verb: str, *names: str, secret: str | None = None, check: bool | None = True) -> str:
        """Its output. It must succeed; with `check=False` it must fail; with None it may do either."""
        remote = ["--plain-http", "--user", f"x:{secret or self.secret}"] if verb != "tag" else []
        done = self.program(
            "--address", self.socket, "images", verb, *self.more, *remote, *names, check=check is True
        )
        assert check is not False or done.returncode != 0
        return done.stdout + done.stderr

    def images(self) -> list[str]:
        return self.program("--address", self.socket, "images", "ls", "--quiet").stdout.split()

    def forget(self) -> None:
        """Remove all images, and the content that only they reference."""
        for name in self.images():
            self.program("--address", self.socket, "images", "rm", "--sync", name)


@pytest.fixture(params=["2.4", "1.6"])
def ctr(request: pytest.FixtureRequest, socket: Path, tmp_path: Path, tenants: Tenants) -> Iterator[Ctr]:
    # The current one would leave transfers to the service, which must then be current as well.
    name, more = ("ctr", ["--local"]) if request.param == "2.4" else ("/usr/bin/ctr", [])
    program = Ctr(Program(name, tmp_path / "home"), socket, tenants.owner.secret or "", more)
    assert request.param in program.program("--version").stdout
    yield program
    program.forget()


@pytest.mark.oci(155, 181)
def test_an_image_is_pulled_tagged_and_pushed_elsewhere(ctr: Ctr, tenants: Tenants) -> None:
    # given an image in the registry
    source, target = tenants.repository(), tenants.repository()
    digest = push_image(tenants, source, "1", tar(b"contents"))
    name, other = f"{tenants.owner.host}/{source}:1", f"{tenants.owner.host}/{target}:2"

    # when it is pulled and unpacked, and pushed with another name
    ctr("pull", name)
    ctr("tag", name, other)
    ctr("push", other)

    # then it is listed, and the pushed image is the same
    assert set(ctr.images()) == {name, other}
    there = tenants.owner.on(target, "GET", "manifests/2")
    assert there.headers["docker-content-digest"] == digest


def test_a_cut_pull_is_resumed(ctr: Ctr, tenants: Tenants, line: Line, large: bytes) -> None:
    repository = tenants.repository()
    push_image(tenants, repository, "1", large)
    line.cut_after(HALF)
    ctr("pull", f"{line.host}/{repository}:1")
    assert line.cuts == 1
    assert line.carried < LARGE + HALF


@pytest.mark.oci(181)
def test_a_layer_of_another_image_is_mounted(ctr: Ctr, tenants: Tenants, line: Line, large: bytes) -> None:
    source, target = f"{line.host}/{tenants.repository()}:1", f"{line.host}/{tenants.repository()}:1"
    push_image(tenants, source.partition("/")[2].removesuffix(":1"), "1", large)
    ctr("pull", source)
    ctr("tag", source, target)
    line.watch()
    ctr("push", target)
    assert line.carried < HALF


def test_a_cut_push_succeeds_when_repeated(ctr: Ctr, tenants: Tenants, line: Line, large: bytes) -> None:
    # given an image from another registry, from containerd's point of view: it does not try to mount
    source, target = tenants.repository(), tenants.repository()
    digest = push_image(tenants, source, "1", large)
    name, other = f"localhost:{tenants.owner.host.partition(':')[2]}/{source}:1", f"{line.host}/{target}:1"
    ctr("pull", name)
    ctr("tag", name, other)

    # when its push is cut, and repeated: containerd 2.4 repeats it itself if it sees the end of the stream,
    # not if it sees a reset connection
    line.cut_after(HALF)
    ctr("push", other, check=None)
    assert line.cuts == 1
    ctr("push", other)

    # then the layer was sent again, and the image is complete
    assert line.carried > LARGE + HALF
    there = tenants.owner.on(target, "GET", "manifests/1")
    assert there.headers["docker-content-digest"] == digest


def test_errors_are_readable(ctr: Ctr, tenants: Tenants, hidden: tuple[str, str]) -> None:
    repository = tenants.repository()
    digest = push_image(tenants, repository, "1", tar(b"contents"))
    name = f"{tenants.owner.host}/{repository}"

    wrong = ctr("pull", f"{name}:1", secret=WRONG, check=False)
    assert "failed to authorize: failed to fetch oauth token" in wrong
    assert "401 Unauthorized" in wrong

    # Private and missing images look alike, for a pull and for a push.
    ctr("pull", f"{name}@{digest}")
    for forbidden in hidden:
        refused = f'failed to resolve reference "{forbidden}": pull access denied, {DENIED}'
        assert refused in ctr("pull", forbidden, check=False)
        ctr("tag", f"{name}@{digest}", forbidden)
        assert "insufficient_scope: authorization failed" in ctr("push", forbidden, check=False)

    # A missing tag of the caller's own image is reported as missing.
    assert f"{name}:2: not found" in ctr("pull", f"{name}:2", check=False)
