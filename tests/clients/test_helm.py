"""helm stores charts in the registry, and selects versions by range."""

import os
from pathlib import Path

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

# As helm 3 and any Kubernetes accept it.
CHART = "apiVersion: v2\nname: hello\nversion: 0.0.0\n"
TEMPLATE = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: hello-{{ .Release.Name }}\n"


def login(helm: Program, host: str, secret: str, *, check: bool = True) -> str:
    words = ["registry", "login", "--plain-http", host, "-u", "x", "--password-stdin"]
    return helm(*words, stdin=secret, check=check).stderr


@pytest.fixture
def helm(tmp_path: Path, tenants: Tenants, line: Line) -> Program:
    program = Program("helm", tmp_path / "home", folder=tmp_path)
    for host in (tenants.owner.host, line.host):
        assert "Login Succeeded" in login(program, host, tenants.owner.secret or "")
    return program


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """The folder of a chart with one object."""
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(CHART)
    (folder / "templates/hello.yaml").write_text(TEMPLATE)
    return folder


def push(helm: Program, chart: Path, version: str, namespace: str, *, check: bool = True) -> str:
    helm("package", str(chart), "--version", version)
    return helm("push", "--plain-http", f"hello-{version}.tgz", f"oci://{namespace}", check=check).stderr


@pytest.mark.oci(184)
def test_charts_are_pushed_and_the_newest_version_in_a_range_is_pulled(
    helm: Program, chart: Path, tenants: Tenants, tmp_path: Path
) -> None:
    # given three versions of a chart
    name = str(tenants.namespace()["name"])
    for version in ("1.2.0", "1.10.0+build.4", "2.0.0"):
        push(helm, chart, version, f"{tenants.owner.host}/{name}")
    reference = f"oci://{tenants.owner.host}/{name}/hello"

    # when one is pulled by its version, another by a range of versions
    helm("pull", "--plain-http", reference, "--version", "1.2.0")
    shown = helm("show", "chart", "--plain-http", reference, "--version", "^1.0.0").stdout
    rendered = helm("template", "--plain-http", "world", reference).stdout

    # then the file is as pushed, the range selected its newest version, and a chart without a range renders
    assert (tmp_path / "hello-1.2.0.tgz").stat().st_size > 0
    assert "version: 1.10.0+build.4" in shown
    assert "name: hello-world" in rendered
    # A tag cannot contain a plus sign: helm writes an underscore instead.
    listed = tenants.owner.on(f"{name}/hello", "GET", "tags/list").json()["tags"]
    assert sorted(listed) == ["1.10.0_build.4", "1.2.0", "2.0.0"]


def test_cut_transfers_succeed_when_repeated(
    helm: Program, chart: Path, tenants: Tenants, line: Line, tmp_path: Path
) -> None:
    # given a chart with a large file (helm accepts at most 5 MB of each)
    for part in "ab":
        (chart / part).write_bytes(os.urandom(LARGE // 2))
    namespace = f"{line.host}/{tenants.namespace()['name']}"
    reference = f"oci://{namespace}/hello"

    # when its push is cut, then helm fails, and succeeds when repeated
    line.cut_after(HALF)
    assert 'failed to perform "Push"' in push(helm, chart, "1.0.0", namespace, check=False)
    assert line.cuts == 1
    assert "Pushed:" in push(helm, chart, "1.0.0", namespace)
    assert line.carried > LARGE + HALF

    # and the same with a pull
    pushed = (tmp_path / "hello-1.0.0.tgz").read_bytes()
    (tmp_path / "hello-1.0.0.tgz").unlink()
    line.cut_after(HALF)
    cut = helm("pull", "--plain-http", reference, "--version", "1.0.0", check=False)
    assert (cut.returncode != 0, line.cuts) == (True, 1)
    helm("pull", "--plain-http", reference, "--version", "1.0.0")
    assert line.carried > LARGE + HALF
    assert (tmp_path / "hello-1.0.0.tgz").read_bytes() == pushed


def test_a_wrong_password_is_a_readable_error(helm: Program, tenants: Tenants) -> None:
    said = login(helm, tenants.owner.host, WRONG, check=False)
    assert "unauthorized: the secret key is unknown, revoked or expired: use one of your API keys" in said


def test_private_and_missing_charts_look_alike(helm: Program, chart: Path, hidden: tuple[str, str]) -> None:
    for name in (hidden_name.removesuffix(":1") for hidden_name in hidden):
        pulled = helm("pull", "--plain-http", f"oci://{name}", check=False)
        assert (
            '/tags/list": response status code 401: denied: requested access to the resource is denied: '
            f"you may not pull from {name.partition('/')[2]}, or it does not exist"
        ) in pulled.stderr
        pushed = push(helm, chart, "1.0.0", name.rpartition("/")[0], check=False)
        # helm sends HEAD first, whose response has no body.
        assert pushed.endswith("response status code 401: Unauthorized\n")


def test_a_missing_version_is_reported_as_missing(helm: Program, chart: Path, tenants: Tenants) -> None:
    namespace = f"{tenants.owner.host}/{tenants.namespace()['name']}"
    push(helm, chart, "1.0.0", namespace)
    pulled = helm("pull", "--plain-http", f"oci://{namespace}/hello", "--version", "2.0.0", check=False)
    assert pulled.stderr.endswith(f"{namespace}/hello:2.0.0: not found\n")
