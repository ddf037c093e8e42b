"""The messages that users of real clients see when the registry refuses a request (OCI 112, 145)."""

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.clients.conftest import Build
from tests.clients.programs import Program
from tests.services.docker import DockerEngine
from tests.services.stack import Stack
from tests.tenants import Tenants

pytestmark = pytest.mark.clients


@pytest.mark.oci(145)
def test_docker_shows_that_the_registry_is_read_only(
    docker: DockerEngine, make_stack: Callable[..., Stack], build: Build
) -> None:
    stack = make_stack(REGISTRY_READ_ONLY="on").start()
    credentials = stack.credentials
    space = f"ns-{uuid4().hex[:12]}"
    httpx.post(
        f"{credentials.control_url}/registry/v1/regions/fr-par/namespaces",
        json={"name": space},
        headers={"X-Auth-Token": credentials.secret_key},
    ).raise_for_status()
    engine = docker.client()
    engine("login", credentials.registry_host, "-u", "x", "--password-stdin", stdin=credentials.secret_key)
    name = f"{credentials.registry_host}/{space}/app:1"
    build(engine, name)
    refused = engine("push", name, check=False)
    assert refused.returncode != 0
    assert "this registry is read-only at present" in refused.stderr


@pytest.mark.oci(112, 142)
def test_crane_shows_missing_blobs_and_denied_rights(tenants: Tenants, tmp_path: Path) -> None:
    crane = Program("crane", tmp_path / "home")
    host, repository = tenants.owner.host, tenants.repository()
    tenants.owner.push_image(repository, "1", b"a layer")
    reader = tenants.new_key("ContainerRegistryReadOnly")
    crane("auth", "login", host, "-u", "x", "-p", reader["secret_key"])
    missing = crane("manifest", f"{host}/{repository}:none", check=False)
    assert "this repository has no tag none" in missing.stderr
    denied = crane("tag", f"{host}/{repository}:1", "2", check=False)
    assert f"you may not push to {repository}" in denied.stderr


def test_clients_show_which_rule_protects_a_tag_and_do_not_retry(
    docker: DockerEngine, tenants: Tenants, build: Build, tmp_path: Path
) -> None:
    # given a protected tag, and clients that have logged in
    host, repository = tenants.owner.host, tenants.repository()
    tenants.owner.push_image(repository, "v1", b"a layer")
    other = tenants.owner.push_image(repository, "other", b"another layer")
    tenants.set_retention(repository, protected_tags=["v*"])
    secret = tenants.owner.secret or ""
    engine, crane = docker.client(), Program("crane", tmp_path / "home")
    engine("login", host, "-u", "x", "--password-stdin", stdin=secret)
    crane("auth", "login", host, "-u", "x", "-p", secret)
    expected = f'tag v1 of {repository} is protected by the rule "v*"'

    # when they move or delete it, then they print the rule, at once
    name = f"{host}/{repository}:v1"
    build(engine, name)
    began = time.monotonic()
    for refused in (
        engine("push", name, check=False),
        crane("tag", f"{host}/{repository}:other", "v1", check=False),
        crane("delete", name, check=False),
    ):
        assert refused.returncode != 0
        assert expected in refused.stderr
        assert "etrying" not in refused.stderr
    assert time.monotonic() - began < 30

    # and the same digest again, other tags and new ones that the rule matches are accepted
    crane("tag", name, "v1")
    crane("tag", f"{host}/{repository}:other", "v2")
    assert crane("digest", f"{host}/{repository}:v2").stdout.strip() == other
    assert crane("digest", name).stdout.strip() != other
