"""A real docker engine: the commands of the README, and the messages that a user sees on errors."""

import time

import pytest

from tests.clients.conftest import HALF, LARGE, WRONG, Build, push_image
from tests.clients.cutting import Line
from tests.services.docker import DockerClient, DockerEngine
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.fixture
def engine(docker: DockerEngine) -> DockerClient:
    return docker.client()


def login(engine: DockerClient, tenants: Tenants, host: str = "") -> None:
    words = ["login", host or tenants.owner.host, "--username", "nologin", "--password-stdin"]
    assert "Login Succeeded" in engine(*words, stdin=tenants.owner.secret or "").stdout


@pytest.mark.oci(156, 180)
def test_login_push_of_two_tags_remove_pull_and_run(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    # given an image, and a login with the secret key
    name = f"{tenants.owner.host}/{tenants.repository()}"
    build(engine, f"{name}:1")
    login(engine, tenants)

    # when it is pushed with two tags, then the layers of the second already exist
    first = engine("push", f"{name}:1").stdout
    assert first.count("Pushed") == 3
    engine("tag", f"{name}:1", f"{name}:2")
    second = engine("push", f"{name}:2").stdout
    assert second.count("Layer already exists") == 3
    assert "Pushed" not in second

    # and when it is removed and pulled, it runs
    engine("rmi", "--force", f"{name}:1", f"{name}:2")
    engine("pull", f"{name}:2")
    assert engine("run", "--rm", "--network=none", f"{name}:2").stdout == "hello from stowage\n"


@pytest.mark.oci(80)
def test_layers_are_mounted_from_another_image(engine: DockerClient, tenants: Tenants, build: Build) -> None:
    source, target = (f"{tenants.owner.host}/{tenants.repository()}" for _ in range(2))
    build(engine, f"{source}:1")
    login(engine, tenants)
    engine("push", f"{source}:1")
    engine("tag", f"{source}:1", f"{target}:1")
    assert engine("push", f"{target}:1").stdout.count("Mounted from") == 3


def test_a_pull_without_login_is_refused_with_dockers_own_message(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    refused = engine("pull", f"{tenants.owner.host}/{repository}:latest", check=False)
    assert refused.returncode != 0
    assert "pull access denied" in refused.stderr
    assert "repository does not exist or may require 'docker login'" in refused.stderr
    missing = engine("pull", f"{tenants.owner.host}/{repository}-none:latest", check=False)
    assert missing.stderr.replace("-none", "") == refused.stderr


@pytest.mark.oci(180)
def test_cut_transfers_are_retried_by_docker_and_pulls_are_resumed(
    engine: DockerClient, tenants: Tenants, line: Line, large: bytes
) -> None:
    source, target = tenants.repository(), tenants.repository()
    push_image(tenants, source, "1", large)
    name, other = f"{line.host}/{source}:1", f"localhost:{line.host.partition(':')[2]}/{target}:1"
    login(engine, tenants, line.host)
    login(engine, tenants, other.partition("/")[0])

    line.cut_after(HALF)
    engine("pull", name)
    assert line.cuts == 1
    assert line.carried < LARGE + HALF

    # The other host is another registry for docker, so it does not try to mount.
    engine("tag", name, other)
    line.cut_after(HALF)
    engine("push", other)
    assert line.cuts == 1
    assert line.carried > LARGE + HALF
    engine("rmi", "--force", name, other)


def test_images_of_another_tenant_and_missing_ones_look_alike(
    engine: DockerClient, tenants: Tenants, hidden: tuple[str, str], build: Build
) -> None:
    login(engine, tenants)
    for name in hidden:
        assert "pull access denied" in engine("pull", name, check=False).stderr
        build(engine, name)
        pushed = engine("push", name, check=False).stderr
        repository = name.partition("/")[2].rpartition(":")[0]
        assert (
            f"denied: requested access to the resource is denied: you may not push to {repository}" in pushed
        )
        engine("rmi", "--force", name)


def test_a_push_to_a_namespace_that_does_not_exist_says_what_to_do(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    login(engine, tenants)
    name = f"{tenants.owner.host}/no-such-namespace/app:1"
    build(engine, name)
    refused = engine("push", name, check=False)
    engine("rmi", "--force", name)
    assert refused.returncode != 0
    assert "create the namespace no-such-namespace if there is none" in refused.stderr


def test_a_push_without_a_namespace_fails_at_once_with_the_reason(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    login(engine, tenants)
    name = f"{tenants.owner.host}/base:1"
    build(engine, name)
    begun = time.monotonic()
    refused = engine("push", name, check=False)
    took = time.monotonic() - begun
    engine("rmi", "--force", name)
    assert refused.returncode != 0
    assert "'base' has no namespace: images are named <namespace>/<image>" in refused.stderr
    assert took < 15  # docker retries a push for 50 s after an error that it treats as temporary


def test_a_missing_tag_of_an_own_image_is_reported_as_missing(engine: DockerClient, tenants: Tenants) -> None:
    repository = tenants.repository()
    tenants.owner.push_image(repository, "1", b"layer")
    login(engine, tenants)
    missing = engine("pull", f"{tenants.owner.host}/{repository}:2", check=False)
    assert "this repository has no tag 2" in missing.stderr


@pytest.mark.parametrize("switch", ["namespace", "image"])
def test_a_change_of_visibility_affects_the_next_pull(
    engine: DockerClient, tenants: Tenants, build: Build, switch: str
) -> None:
    # given a private image that another user has pushed
    repository = tenants.repository()
    name = f"{tenants.owner.host}/{repository}:1"
    build(engine, name)
    login(engine, tenants)
    engine("push", name)
    engine("logout", tenants.owner.host)
    engine("rmi", "--force", name)

    for public in (False, True, False, True):
        # when its visibility is changed over the API
        if switch == "namespace":
            tenants.set_namespace(repository, is_public=public)
        else:
            tenants.set_image(repository, visibility="public" if public else "private")
        # then the next pull without login succeeds or fails accordingly
        pulled = engine("pull", name, check=False)
        assert (pulled.returncode == 0) == public, pulled.stderr
        engine("rmi", "--force", name, check=False)


def test_a_wrong_key_cannot_log_in(engine: DockerClient, tenants: Tenants) -> None:
    done = engine("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=WRONG, check=False)
    assert done.returncode != 0
    assert "unauthorized: the secret key is unknown, revoked or expired" in done.stderr


@pytest.mark.oci(112)
def test_a_push_without_the_right_is_a_readable_error(
    engine: DockerClient, tenants: Tenants, build: Build
) -> None:
    # given a user who may only read, and an image in a namespace that does not exist
    reader = tenants.new_key("ContainerRegistryReadOnly")
    engine("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=reader["secret_key"])
    for repository in (tenants.repository(), "there-is-no-such-namespace/app"):
        name = f"{tenants.owner.host}/{repository}:1"
        build(engine, name)
        refused = engine("push", name, check=False)
        assert refused.returncode != 0
        assert "denied: requested access to the resource is denied" in refused.stderr


def test_pulls_fail_after_the_key_of_the_login_was_revoked(engine: DockerClient, tenants: Tenants) -> None:
    repository = tenants.image_with_policies(is_public=False, visibility="inherit")
    key = tenants.new_key("ContainerRegistryReadOnly")
    engine("login", tenants.owner.host, "-u", "x", "--password-stdin", stdin=key["secret_key"])
    tenants.revoke(key["access_key"])
    refused = engine("pull", f"{tenants.owner.host}/{repository}:latest", check=False)
    assert refused.returncode != 0
    assert "unknown or revoked" in refused.stderr or "unauthorized" in refused.stderr
