"""Replication between running products and real registries: Stowage, docker-registry 2.8, distribution v3."""

import gzip
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from registry_data.client.egress import EgressPolicy
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from tests.clients.conftest import WRONG, tar
from tests.clients.cutting import Line
from tests.clients.programs import Program
from tests.clients.replicating import Json, Replicator, replicating, unique
from tests.oci_client import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, image_manifest
from tests.services.plugin import Backing
from tests.services.ports import free_port
from tests.services.registries import PEERS, running_registry
from tests.services.remote import send_blob
from tests.services.scripted import replying, running_script
from tests.services.stack import STATE, Stack
from tests.services.waiting import wait_until

pytestmark = pytest.mark.clients

LAYER: Final = bytes(300 * 1024 * 1024)
SIGN: Final = ["--key", "cosign.key", "--use-signing-config=false", "--tlog-upload=false", "--yes"]
VERIFY: Final = ["--key", "cosign.pub", "--insecure-ignore-tlog=true"]
OLD: Final = "--new-bundle-format=false"


@dataclass(frozen=True)
class Peer:
    """A registry to replicate to or from."""

    name: str
    host: str
    username: str = ""
    password: str = ""
    namespace: str = "mirror"


@pytest.fixture(scope="module")
def here(backing: Backing) -> Iterator[Replicator]:
    """The product that replicates."""
    with _running(backing, REGISTRY_EGRESS_ALLOW="127.0.0.1, 127.0.0.2", REGISTRY_WORKER_BULK="3") as running:
        yield running


@pytest.fixture(scope="module")
def there(backing: Backing) -> Iterator[Replicator]:
    """A second product."""
    with _running(backing) as running:
        yield running


@contextmanager
def _running(backing: Backing, **environment: str) -> Iterator[Replicator]:
    folder = backing.folder / unique("replication")
    settings = backing.migrated_environment(folder / STATE) | environment
    with Stack(folder, environment=settings) as stack, replicating(stack) as running:
        yield running


@pytest.fixture(params=["stowage", *PEERS])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    if request.param == "stowage":
        there: Replicator = request.getfixturevalue("there")
        yield Peer("stowage", there.host, "anyone", there.oci.secret or "", there.namespace()["name"])
    else:
        with running_registry(request.param, tmp_path / "peer") as host:
            yield Peer(request.param, host)


@pytest.fixture
def crane(tmp_path: Path) -> Program:
    return Program("crane", tmp_path / "home")


@pytest.fixture
def cosign(tmp_path: Path) -> Program:
    """cosign with a key pair."""
    program = Program("cosign", tmp_path / "home", folder=tmp_path)
    program.environment |= {"COSIGN_PASSWORD": "", "TUF_ROOT": str(tmp_path / "tuf")}
    program("generate-key-pair")
    return program


def log_in(program: Program, host: str, username: str, password: str) -> None:
    """Both programs read the same configuration."""
    words = ["auth"] if program.path.name == "crane" else []
    program(*words, "login", host, "-u", username, "--password-stdin", stdin=password)


def push_image(
    here: Replicator, repository: str, reference: str, content: bytes, architecture: str = "amd64"
) -> bytes:
    """Push an image with one file, whose parts belong together; return its manifest."""
    archive = tar(content)
    layer = gzip.compress(archive, mtime=0)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(archive)]},
    }
    image = image_manifest(json.dumps(config).encode(), [layer])
    image["layers"][0]["mediaType"] += "+gzip"
    for data in (json.dumps(config).encode(), layer):
        here.oci.push_blob(repository, data)
    manifest = json.dumps(image).encode()
    pushed = here.oci.put_manifest(repository, reference or digest_of(manifest), manifest)
    assert pushed.status_code == 201, pushed.text
    return manifest


def push_index(here: Replicator, repository: str, tag: str) -> str:
    """Push an index of two images, and an artifact that refers to one of them; return the index's digest."""
    architectures = ("amd64", "arm64")
    images = [push_image(here, repository, "", os.urandom(1000), each) for each in architectures]
    children = [descriptor(image, OCI_MANIFEST) for image in images]
    for child, architecture in zip(children, architectures, strict=True):
        child["platform"] = {"os": "linux", "architecture": architecture}
    pushed = here.oci.put_manifest(
        repository, tag, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    )
    assert pushed.status_code == 201, pushed.text
    push_artifact(here, repository, children[0], b"scanned")
    return str(pushed.headers["docker-content-digest"])


def push_artifact(here: Replicator, repository: str, subject: Json, content: bytes) -> str:
    """Push an artifact that refers to a manifest; return its digest."""
    for data in (b"{}", content):
        here.oci.push_blob(repository, data)
    artifact = image_manifest(b"{}", [content], subject=subject, artifactType="application/x-scan")
    payload = json.dumps(artifact).encode()
    pushed = here.oci.put_manifest(repository, digest_of(payload), payload)
    assert pushed.status_code == 201, pushed.text
    return digest_of(payload)


def test_a_signed_index_is_pushed_by_hand(
    here: Replicator, peer: Peer, crane: Program, cosign: Program
) -> None:
    # given an index of two images, signed with a tag and with a referrer
    namespace = here.namespace()
    repository = f"{namespace['name']}/app"
    digest = push_index(here, repository, "1")
    for program in (crane, cosign):
        log_in(program, here.host, "anyone", here.oci.secret or "")
        if peer.password:
            log_in(program, peer.host, peer.username, peer.password)
    for form in ([], [OLD]):
        cosign("sign", *SIGN, *form, f"{here.host}/{repository}@{digest}")

    # when a rule for it runs
    target = here.target(peer.host, username=peer.username, password=peer.password)
    assert here.call("POST", f"targets/{target['id']}/check")["ok"] is True
    rule = here.rule("push", target, namespace, tags="1", destination=f"{peer.namespace}/copy-{{image}}")
    execution = here.run(rule)

    # then the target has the same digests, all of the content, and signatures that verify
    assert (execution["status"], execution["errors"]) == ("succeeded", [])
    assert execution["images_done"] == execution["images_total"] == 1
    assert execution["bytes_done"] == execution["bytes_total"] > 0
    copy = f"{peer.host}/{peer.namespace}/copy-app"
    assert crane("digest", f"{copy}:1").stdout.strip() == digest
    crane("validate", "--remote", f"{copy}:1")
    for form in ([], [OLD]):
        cosign("verify", *VERIFY, *form, f"{copy}@{digest}")

    # and a second run transfers nothing
    again = here.run(rule)
    assert (again["status"], again["errors"], again["bytes_done"]) == ("succeeded", [], 0)


def test_an_image_is_pushed_by_a_push_and_its_referrer_by_a_later_one(
    here: Replicator, peer: Peer, crane: Program
) -> None:
    namespace = here.namespace()
    repository = f"{namespace['name']}/app"
    target = here.target(peer.host, username=peer.username, password=peer.password)
    rule = here.rule(
        "push", target, namespace, on_push=True, destination=f"{peer.namespace}/{unique('copy')}/{{image}}"
    )
    copy = f"{peer.host}/{rule['destination'].replace('{image}', 'app')}"
    if peer.password:
        log_in(crane, peer.host, peer.username, peer.password)

    # when an image is pushed, then the target has it soon
    manifest = push_image(here, repository, "1", b"content")
    wait_until(lambda: crane("digest", f"{copy}:1", check=False).stdout.strip() == digest_of(manifest))

    # when an artifact is pushed that refers to the image, then the target has that as well
    artifact = push_artifact(here, repository, descriptor(manifest, OCI_MANIFEST), b"scanned")
    wait_until(lambda: crane("digest", f"{copy}@{artifact}", check=False).stdout.strip() == artifact)
    wait_until(lambda: {found["status"] for found in here.executions(rule)} == {"succeeded"})
    assert {found["trigger"] for found in here.executions(rule)} == {"push"}


def test_a_target_without_the_referrers_api_lists_all_referrers(here: Replicator, tmp_path: Path) -> None:
    # given two referrers, one of which a client such as notation has also listed under the fallback tag
    namespace = here.namespace()
    repository = f"{namespace['name']}/app"
    manifest = push_image(here, repository, "1", b"content")
    subject = descriptor(manifest, OCI_MANIFEST)
    pushed = [push_artifact(here, repository, subject, word) for word in (b"one", b"two")]
    entry = here.oci.on(repository, "GET", f"referrers/{subject['digest']}").json()["manifests"][:1]
    fallback = str(subject["digest"]).replace(":", "-")
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entry}
    assert here.oci.put_manifest(repository, fallback, listed).status_code == 201

    # when the image is replicated twice to a registry that needs the tag
    with running_registry("docker-registry", tmp_path / "peer") as host:
        rule = here.rule("push", here.target(host), namespace)
        states = []
        for _ in range(2):
            assert here.run(rule)["status"] == "succeeded"
            with RemoteRegistry(f"http://{host}", egress=EgressPolicy.parse("127.0.0.1")) as remote:
                found = remote.referrers(repository, Digest.parse(subject["digest"]))
                states.append(remote.get_manifest(repository, fallback))
            assert {str(each.digest) for each in found} == set(pushed)

    # then its list has both, and the second run changed nothing
    assert states[0] == states[1]


def test_transfers_continue_after_a_cut(here: Replicator, peer: Peer) -> None:
    # given a large layer, and a connection that breaks in the middle of it
    namespace, into = here.namespace(), here.namespace()
    layer = os.urandom(30_000_000)
    digest = here.oci.push_image(f"{namespace['name']}/app", "1", layer)
    with Line(peer.host) as line:
        target = here.target(line.host, username=peer.username, password=peer.password)
        push = here.rule("push", target, namespace, destination=f"{peer.namespace}/cut")
        pull_back = here.rule("pull", target, into, repositories=[f"{peer.namespace}/cut"], destination="app")

        # when it is pushed and pulled back, then both continue or start again by themselves
        for rule in (push, pull_back):
            line.cut_after(len(layer) // 2)
            done = here.run(rule)
            assert (done["status"], done["errors"], line.cuts) == ("succeeded", [], 1)
    own = Peer("here", here.host, "anyone", here.oci.secret or "", into["name"])
    manifest, received = pull(own, "app", "manifests/1", f"blobs/{digest_of(layer)}")
    assert (digest_of(manifest), received) == (digest, layer)


@pytest.mark.slow
def test_a_schedule_pushes(here: Replicator, tmp_path: Path, crane: Program) -> None:
    namespace = here.namespace()
    manifest = push_image(here, f"{namespace['name']}/app", "1", b"scheduled")
    with running_registry("docker-registry", tmp_path / "peer") as host:
        rule = here.rule("push", here.target(host), namespace, cron="* * * * *")
        wait_until(
            lambda: [found for found in here.executions(rule) if found["status"] == "succeeded"] != [],
            timeout=90,
        )
        here.call("PATCH", f"rules/{rule['id']}", enabled=False)
        found = here.executions(rule)[0]
        assert (found["trigger"], found["images_done"]) == ("cron", 1)
        copy = f"{host}/{namespace['name']}/app:1"
        assert crane("digest", copy).stdout.strip() == digest_of(manifest)


@pytest.mark.parametrize("program", PEERS)
def test_a_signed_index_is_pulled(
    here: Replicator, program: str, tmp_path: Path, crane: Program, cosign: Program
) -> None:
    # given a signed index in another registry
    source = here.namespace()
    repository = f"{source['name']}/app"
    digest = push_index(here, repository, "1")
    for each in (crane, cosign):
        log_in(each, here.host, "anyone", here.oci.secret or "")
    with running_registry(program, tmp_path / "peer") as host:
        crane("copy", f"{here.host}/{repository}:1", f"{host}/team/app:1")
        for form in ([], [OLD]):
            cosign("sign", *SIGN, *form, f"{host}/team/app@{digest}")

        # when a rule pulls it
        namespace = here.namespace()
        rule = here.rule("pull", here.target(host), namespace, repositories=["team/*"], tags="1")
        execution = here.run(rule)

        # then it is here, and its signatures verify
        assert (execution["status"], execution["errors"]) == ("succeeded", [])
        copy = f"{here.host}/{namespace['name']}/{_image_of(here, namespace)}"
        assert crane("digest", f"{copy}:1").stdout.strip() == digest
        crane("validate", "--remote", f"{copy}:1")
        for form in ([], [OLD]):
            cosign("verify", *VERIFY, *form, f"{copy}@{digest}")

        # and a second run transfers nothing
        again = here.run(rule)
        assert (again["status"], again["errors"], again["bytes_done"]) == ("succeeded", [], 0)


def _image_of(here: Replicator, namespace: Json) -> str:
    """The name of the only image of a namespace."""
    found = here.http.get(f"/registry/v1/regions/fr-par/images?namespace_id={namespace['id']}").json()
    (image,) = found["images"]
    return str(image["name"])


@pytest.mark.slow
@pytest.mark.timeout(400)  # with the start of two products
def test_a_killed_worker_is_replaced_in_the_middle_of_large_layers(
    here: Replicator, there: Replicator, tmp_path: Path
) -> None:
    # given a layer of 300 MB that is on its way to two registries, and from a third one
    namespace = here.namespace()
    digest = here.oci.push_image(f"{namespace['name']}/large", "1", LAYER)
    into = here.namespace()
    with ExitStack() as cleanup:
        v2, v3 = (cleanup.enter_context(running_registry(name, tmp_path / name)) for name in PEERS)
        copy_to(v2, "mirror/large", LAYER)
        peers = [
            Peer("stowage", there.host, "anyone", there.oci.secret or "", there.namespace()["name"]),
            Peer("distribution-registry", v3),
            Peer("docker-registry", v2),
        ]
        lines = [cleanup.enter_context(Line(peer.host)) for peer in peers]
        targets = [
            here.target(line.host, username=peer.username, password=peer.password)
            for line, peer in zip(lines, peers, strict=True)
        ]
        rules = [
            here.rule("push", target, namespace, destination=f"{peer.namespace}/large")
            for target, peer in zip(targets[:2], peers[:2], strict=True)
        ]
        rules.append(here.rule("pull", targets[2], into, repositories=["mirror/large"], destination="large"))
        executions = [here.call("POST", f"rules/{rule['id']}/run") for rule in rules]
        wait_until(lambda: all(line.carried > len(LAYER) // 4 for line in lines))

        # when the worker is killed
        here.kill_worker()

        # then another one completes the executions within a minute
        killed = time.monotonic()
        for execution in executions:
            ended = here.ended(execution, timeout=60 - (time.monotonic() - killed))
            assert (ended["status"], ended["errors"]) == ("succeeded", [])
        own = Peer("here", here.host, "anyone", here.oci.secret or "", into["name"])
        for peer in [*peers[:2], own]:
            manifest, layer = pull(peer, "large", "manifests/1", f"blobs/{digest_of(LAYER)}")
            assert digest_of(manifest) == digest
            assert hashlib.sha256(layer).digest() == hashlib.sha256(LAYER).digest()


def copy_to(host: str, repository: str, layer: bytes) -> None:
    """Push the image that `OciClient.push_image` makes of a layer to another registry, as the tag 1."""
    config = b'{"architecture":"amd64","os":"linux"}'
    with RemoteRegistry(f"http://{host}", egress=EgressPolicy.parse("127.0.0.1")) as remote:
        for data in (config, layer):
            send_blob(remote, repository, data)
        payload = json.dumps(image_manifest(config, [layer])).encode()
        remote.put_manifest(repository, "1", media_type=OCI_MANIFEST, payload=payload)


def pull(peer: Peer, image: str, *paths: str) -> list[bytes]:
    """Get content of a repository at a peer."""
    repository = f"{peer.namespace}/{image}"
    headers = {"Accept": OCI_MANIFEST}
    with httpx.Client(base_url=f"http://{peer.host}", timeout=60, follow_redirects=True) as http:
        if peer.password:
            scope = f"repository:{repository}:pull"
            token = http.get(
                "/token", params={"service": "registry", "scope": scope}, auth=(peer.username, peer.password)
            )
            headers["Authorization"] = f"Bearer {token.json()['token']}"
        answers = [http.get(f"/v2/{repository}/{path}", headers=headers) for path in paths]
    assert [answer.status_code for answer in answers] == [200] * len(paths)
    return [answer.content for answer in answers]


def test_refused_credentials_fail_the_execution(here: Replicator, there: Replicator) -> None:
    namespace = here.namespace()
    push_image(here, f"{namespace['name']}/app", "1", b"content")
    target = here.target(there.host, username="anyone", password=WRONG)
    checked = here.call("POST", f"targets/{target['id']}/check")
    assert checked["ok"] is False
    assert WRONG not in checked["message"]
    rule = here.rule("push", target, namespace, destination=f"{there.namespace()['name']}/app")
    execution = here.run(rule, timeout=30)
    assert execution["status"] == "failed"
    assert "refuses the user name and password" in execution["errors"][0]


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_target_is_tried_again(
    here: Replicator, tmp_path: Path, status: int, crane: Program
) -> None:
    namespace = here.namespace()
    manifest = push_image(here, f"{namespace['name']}/app", "1", b"content")
    port = free_port()
    host = f"127.0.0.1:{port}"
    rule = here.rule("push", here.target(host), namespace)
    with running_script("127.0.0.1", port=port) as overloaded:
        overloaded.on("", replying(status, Retry_After="1"))
        execution = here.call("POST", f"rules/{rule['id']}/run")
        wait_until(lambda: len(overloaded.requests) >= 2)
        shown = here.execution(execution)
        assert shown["status"] == "running"
        assert f"answered {status}" in shown["errors"][0]
    with running_registry("docker-registry", tmp_path / "peer", host=host):
        ended = here.ended(execution)
        assert (ended["status"], ended["errors"]) == ("succeeded", [])
        assert crane("digest", f"{host}/{namespace['name']}/app:1").stdout.strip() == digest_of(manifest)


def test_a_target_that_leads_to_an_internal_address_is_refused(here: Replicator) -> None:
    refused = here.http.post(
        "/replication/v1beta1/regions/fr-par/targets",
        json={"name": unique("target"), "url": "http://169.254.169.254"},
    )
    assert refused.status_code == 400
    assert "REGISTRY_EGRESS_ALLOW" in refused.text
    namespace = here.namespace()
    push_image(here, f"{namespace['name']}/app", "1", b"content")
    with running_script("127.0.0.2") as script, running_script("127.0.0.3") as internal:
        script.on("", replying(401, WWW_Authenticate=f'Bearer realm="http://{internal.host}/token"'))
        target = here.target(script.host, username="anyone", password="secret-password")
        checked = here.call("POST", f"targets/{target['id']}/check")
        assert checked["ok"] is False
        assert "REGISTRY_EGRESS_ALLOW" in checked["message"]
        execution = here.run(here.rule("push", target, namespace), timeout=30)
        assert execution["status"] == "failed"
        assert "127.0.0.3 has a loopback address" in execution["errors"][0]
        assert "REGISTRY_EGRESS_ALLOW" in execution["errors"][0]
        assert internal.lines() == []
