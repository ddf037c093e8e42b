"""How real clients use the refresh token of a docker login (OCI 154-156)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Build
from tests.clients.programs import Program
from tests.services.docker import DockerClient, DockerEngine
from tests.services.stack import Stack
from tests.tenants import Tenants

pytestmark = [pytest.mark.clients, pytest.mark.oci(154, 155, 156)]

ENDED = "this login has ended, its API key was revoked or has expired: log in again with another one"


@pytest.fixture
def engine(docker: DockerEngine) -> DockerClient:
    return docker.client()


def login(engine: DockerClient, tenants: Tenants, secret: str) -> dict[str, Any]:
    """Log in, and return the credentials that docker has stored."""
    engine("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=secret)
    kept = (engine.config / "config.json").read_text()
    assert secret not in kept
    found: dict[str, Any] = json.loads(kept)["auths"][tenants.owner.host]
    return found


def test_docker_stores_the_refresh_token_and_uses_it(
    engine: DockerClient, tenants: Tenants, stack: Stack, build: Build
) -> None:
    # given a login, after which docker does not have the secret key any more
    token = login(engine, tenants, tenants.owner.secret or "")["identitytoken"]

    # when an image is pushed and pulled
    name = f"{tenants.owner.host}/{tenants.repository()}:1"
    build(engine, name)
    engine("push", name)
    engine("rmi", "--force", name)
    engine("pull", name)

    # then the product has not logged the token anywhere
    assert token.startswith("stowage_SCW")
    assert token not in stack.log
    for path in stack.state_dir.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes(), path


def test_a_login_with_a_revoked_key_gets_a_clear_error_and_a_new_login_works(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    # given a login whose key is revoked
    host = tenants.owner.host
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    pulled, pushed = f"{host}/{repository}:latest", f"{host}/{repository}:new"
    key = tenants.new_key("ContainerRegistryPush")
    login(engine, tenants, key["secret_key"])
    build(engine, pushed)
    engine("push", pushed)
    tenants.revoke(key["access_key"])

    # when it is used, then the error says what to do
    for command in (("pull", pulled), ("push", pushed)):
        refused = engine(*command, check=False)
        assert refused.returncode != 0
        assert ENDED in refused.stderr, (command, refused.stderr, refused.stdout)

    # and when the owner logs in with another key, it works
    login(engine, tenants, tenants.new_key("ContainerRegistryPush")["secret_key"])
    engine("push", pushed)


def test_other_programs_use_dockers_login(
    engine: DockerClient, docker: DockerEngine, tenants: Tenants, tmp_path: Path
) -> None:
    # given a login of docker, and an image
    repository = tenants.repository()
    digest = tenants.owner.push_image(repository, "1", os.urandom(100))
    name = f"{tenants.owner.host}/{repository}:1"
    token = login(engine, tenants, tenants.owner.secret or "")["identitytoken"]

    # when skopeo, crane and containerd use docker's stored credentials, then they read and write
    authfile = str(engine.config / "config.json")
    skopeo = Program("skopeo", tmp_path / "skopeo")
    inspected = skopeo("inspect", "--tls-verify=false", "--authfile", authfile, f"docker://{name}")
    assert json.loads(inspected.stdout)["Digest"] == digest
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--authfile", authfile,
           f"docker://{name}", f"docker://{name}-copy")  # fmt: skip
    crane = Program("crane", tmp_path / "crane")
    crane.environment["DOCKER_CONFIG"] = str(engine.config)
    assert crane("ls", name.removesuffix(":1")).stdout.split() == ["1", "1-copy"]
    crane("tag", name, "2")
    ctr = Program("ctr", tmp_path / "ctr")
    socket = f"{docker.folder}/exec/containerd/containerd.sock"
    fetched = ctr("--address", socket, "content", "fetch", "--plain-http", "--refresh", token, name)
    assert digest.removeprefix("sha256:")[:12] in fetched.stdout or "done" in fetched.stdout


def test_skopeo_uses_dockers_login_or_its_own(engine: DockerClient, tenants: Tenants, tmp_path: Path) -> None:
    # given a home folder in which docker has logged in
    host, secret = tenants.owner.host, tenants.owner.secret or ""
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", b"layer")
    skopeo = Program("skopeo", tmp_path / "home")
    login(engine, tenants, secret)
    config = tmp_path / "home" / "docker" / "config.json"
    config.write_bytes((engine.config / "config.json").read_bytes())
    words = ("login", "--tls-verify=false", "-u", "x", "--password-stdin", host)

    # when skopeo logs in to the same host, then it refuses because of docker's entry, but works with it
    assert "auth file contains an Identity token" in skopeo(*words, stdin=secret, check=False).stderr
    skopeo("inspect", "--tls-verify=false", f"docker://{host}/{repository}:1")

    # and without docker's entry it logs in
    config.unlink()
    skopeo(*words, stdin=secret)
