"""Clients of a product behind nginx with TLS, and of the same product over plain HTTP."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.clients.conftest import Build, tar
from tests.clients.programs import Program
from tests.oci_client import OciClient, digest_of, image_manifest
from tests.services.docker import DockerEngine
from tests.services.nginx import TlsProxy, make_tls_proxy
from tests.services.plugin import Backing
from tests.services.stack import STATE, Credentials, Stack
from tests.tenants import REGION

pytestmark = pytest.mark.clients

LAYER: Final = tar(b"content" * 1000)

# Pushes and pulls the image HOST/REPOSITORY:TAG.
RoundTrip = Callable[[str], None]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> TlsProxy:
    return make_tls_proxy(tmp_path_factory.mktemp("nginx") / "proxy")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, backing: Backing, proxy: TlsProxy) -> Iterator[Stack]:
    """A product without REGISTRY_PUBLIC_HOST behind a proxy that forwards Host."""
    folder = tmp_path_factory.mktemp("product")
    environment = backing.migrated_environment(folder / STATE) | proxy.environment
    with (
        Stack(folder, environment=environment) as stack,
        proxy.forwarding(control=stack.control_address, data=stack.data_address),
    ):
        make_namespace(stack.credentials)
        yield stack


@pytest.fixture(scope="module")
def hidden_proxy(tmp_path_factory: pytest.TempPathFactory) -> TlsProxy:
    return make_tls_proxy(tmp_path_factory.mktemp("nginx") / "proxy")


@pytest.fixture(scope="module")
def hidden_product(
    tmp_path_factory: pytest.TempPathFactory, backing: Backing, hidden_proxy: TlsProxy
) -> Iterator[Stack]:
    """A product that knows its host from REGISTRY_PUBLIC_HOST only: its proxy does not forward Host."""
    folder = tmp_path_factory.mktemp("product")
    environment = backing.migrated_environment(folder / STATE) | hidden_proxy.environment
    environment["REGISTRY_PUBLIC_HOST"] = hidden_proxy.registry_host
    with (
        Stack(folder, environment=environment) as stack,
        hidden_proxy.forwarding(control=stack.control_address, data=stack.data_address, forward_host=False),
    ):
        make_namespace(stack.credentials)
        yield stack


def make_namespace(credentials: Credentials) -> None:
    url = f"{credentials.control_url}{REGION}/namespaces"
    headers = {"X-Auth-Token": credentials.secret_key}
    httpx.post(url, headers=headers, json={"name": "shared"}).raise_for_status()


# Prepares images with these names; the result pushes and pulls one of them.
Client = Callable[[Credentials, TlsProxy, Sequence[str]], RoundTrip]


@pytest.fixture
def docker_client(docker: DockerEngine, build: Build) -> Client:
    def client(credentials: Credentials, _: TlsProxy, names: Sequence[str]) -> RoundTrip:
        for name in names:  # before any is removed: one build reuses the layers of the other
            build(docker.client(), name)

        def push_and_pull(name: str) -> None:
            engine = docker.client()
            words = ["login", name.partition("/")[0], "--username", "x", "--password-stdin"]
            engine(*words, stdin=credentials.secret_key)
            engine("push", name)
            engine("rmi", "--force", name)
            engine("pull", name)
            engine("rmi", "--force", name)

        return push_and_pull

    return client


@pytest.fixture
def skopeo_client(tmp_path: Path) -> Client:
    def client(credentials: Credentials, proxy: TlsProxy, names: Sequence[str]) -> RoundTrip:
        def push_and_pull(name: str) -> None:
            folder = tmp_path / name.partition(":")[2].replace("/", "-")
            skopeo = Program("skopeo", folder / "home")
            write_image(folder / "image")
            tls = name.startswith(proxy.registry_host)

            def options(side: str) -> list[str]:
                trust = f"cert-dir={proxy.certificates.ca_folder}" if tls else "tls-verify=false"
                return [f"--{side}-{trust}", f"--{side}-creds", f"x:{credentials.secret_key}"]

            skopeo("copy", *options("dest"), f"dir:{folder}/image", f"docker://{name}")
            skopeo("copy", *options("src"), f"docker://{name}", f"dir:{folder}/pulled")

        return push_and_pull

    return client


@pytest.fixture
def crane_client(tmp_path: Path) -> Client:
    def client(credentials: Credentials, proxy: TlsProxy, names: Sequence[str]) -> RoundTrip:
        def push_and_pull(name: str) -> None:
            folder = tmp_path / name.partition(":")[2].replace("/", "-")
            crane = Program("crane", folder / "home")
            crane.environment["SSL_CERT_FILE"] = str(proxy.certificates.ca)
            host = name.partition("/")[0]
            crane("auth", "login", host, "-u", "x", "--password-stdin", stdin=credentials.secret_key)
            (folder / "layer").write_bytes(LAYER)
            crane("append", "--new_layer", str(folder / "layer"), "--new_tag", name)
            crane("validate", "--remote", name)

        return push_and_pull

    return client


CLIENTS: Final = ("docker_client", "skopeo_client", "crane_client")


@pytest.mark.parametrize("client", CLIENTS)
def test_concurrent_pushes_and_pulls_through_tls_and_directly(
    request: pytest.FixtureRequest, product: Stack, proxy: TlsProxy, client: str
) -> None:
    make: Client = request.getfixturevalue(client)
    names = [f"{proxy.registry_host}/shared/{client}-tls:1", f"{product.data_address}/shared/{client}:1"]
    push_and_pull = make(product.credentials, proxy, names)
    with ThreadPoolExecutor(len(names)) as threads:
        for done in [threads.submit(push_and_pull, name) for name in names]:
            done.result()

    # then both images are in the same registry
    with OciClient(product.data_address, product.credentials.secret_key) as direct:
        for name in names:
            repository = name.partition("/")[2].removesuffix(":1")
            assert direct.on(repository, "GET", "manifests/1").status_code == 200


@pytest.mark.parametrize("client", CLIENTS)
def test_pushes_and_pulls_through_a_proxy_that_does_not_forward_the_host(
    request: pytest.FixtureRequest, hidden_product: Stack, hidden_proxy: TlsProxy, client: str
) -> None:
    make: Client = request.getfixturevalue(client)
    name = f"{hidden_proxy.registry_host}/shared/{client}:1"
    make(hidden_product.credentials, hidden_proxy, [name])(name)


def write_image(folder: Path) -> None:
    """Write an image in the format of skopeo's `dir:` transport."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}}).encode()
    folder.mkdir()
    (folder / "version").write_text("Directory Transport Version: 1.1\n", encoding="ascii")
    (folder / "manifest.json").write_text(json.dumps(image_manifest(config, [LAYER])), encoding="utf-8")
    for content in (config, LAYER):
        (folder / digest_of(content).removeprefix("sha256:")).write_bytes(content)
