"""The client of replication with real registries: docker-registry 2.8, distribution v3, and Stowage."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from minio import Minio

from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import EgressRefused, RemoteDenied, RemoteRefused
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.clients.cutting import Line
from tests.oci_client import descriptor, image_manifest
from tests.services.minio import S3Server
from tests.services.registries import PEERS, running_registry
from tests.services.remote import finish_upload, send_blob
from tests.tenants import Tenants

pytestmark = pytest.mark.clients

CONFIG: Final = b'{"architecture":"amd64","os":"linux"}'
LARGE: Final = 20_000_000  # bytes
EGRESS: Final = EgressPolicy.parse("127.0.0.1")
# The password is "password", hashed with bcrypt.
_HTPASSWD: Final = "user:$2b$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"


@dataclass(frozen=True)
class Peer:
    """A client of a registry, connected through a proxy that can cut connections."""

    remote: RemoteRegistry
    line: Line
    repository: str
    name: str

    def push(self, data: bytes) -> None:
        send_blob(self.remote, self.repository, data)

    def put(self, reference: str | Digest, document: dict[str, Any]) -> Digest:
        payload = json.dumps(document).encode()
        self.remote.put_manifest(
            self.repository, reference, media_type=document["mediaType"], payload=payload
        )
        return Digest.of(payload)


@pytest.fixture(params=[*PEERS, "stowage"])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    with ExitStack() as stack:
        username = password = ""
        repository = "team/app"
        if request.param == "stowage":
            tenants: Tenants = request.getfixturevalue("tenants")
            host, repository = tenants.owner.host, tenants.repository()
            username, password = "anyone", tenants.owner.secret or ""
        else:
            host = stack.enter_context(running_registry(request.param, tmp_path))
        line = stack.enter_context(Line(host))
        remote = stack.enter_context(
            RemoteRegistry(f"http://{line.host}", username=username, password=password, egress=EGRESS)
        )
        yield Peer(remote, line, repository, request.param)


def test_an_index_with_referrers_is_pushed_and_pulled(peer: Peer) -> None:
    remote, repository = peer.remote, peer.repository
    remote.check()
    assert remote.head_manifest(repository, "1") is None
    layers = [b"layer %d" % number for number in range(3)]
    for data in (CONFIG, b"{}", *layers):
        assert remote.blob_size(repository, Digest.of(data)) is None
        peer.push(data)
        assert remote.blob_size(repository, Digest.of(data)) == len(data)
    images = [image_manifest(CONFIG, [layer]) for layer in layers]
    for image in images:
        peer.put(Digest.of(json.dumps(image).encode()), image)
    children = [descriptor(json.dumps(image).encode(), OCI_MANIFEST) for image in images]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    digest = peer.put("1", index)
    subject = descriptor(json.dumps(index).encode(), OCI_INDEX)
    referrers = [
        image_manifest(b"{}", [layers[0]], subject=subject, artifactType=f"application/x-{number}")
        for number in range(2)
    ]
    pushed = [peer.put(Digest.of(json.dumps(referrer).encode()), referrer) for referrer in referrers]

    found = remote.head_manifest(repository, "1")
    assert found is not None
    assert (found.media_type, found.digest, found.size) == (OCI_INDEX, digest, len(json.dumps(index)))
    manifest = remote.get_manifest(repository, digest)
    assert manifest is not None
    assert json.loads(manifest.payload) == index
    assert {entry.digest for entry in remote.referrers(repository, digest)} == set(pushed)
    assert remote.referrers(repository, Digest.of(b"no such subject")) == []
    fallback = set() if peer.name == "stowage" else {f"sha256-{digest.encoded}"}
    assert set(remote.tags(repository)) == {"1"} | fallback
    assert repository in list(remote.catalog())


def test_blobs_are_mounted_from_other_repositories(peer: Peer) -> None:
    peer.push(b"shared")
    digest, other = Digest.of(b"shared"), f"{peer.repository}/other"
    assert peer.remote.mount_blob(other, digest, source=peer.repository)
    assert peer.remote.blob_size(other, digest) == len(b"shared")
    assert not peer.remote.mount_blob(other, Digest.of(b"missing"), source=peer.repository)
    assert not peer.remote.mount_blob(f"{peer.repository}/third", digest, source="no-such/repository")


def test_a_blob_of_no_bytes(peer: Peer) -> None:
    peer.push(b"")
    assert peer.remote.blob_size(peer.repository, Digest.of(b"")) == 0
    assert list(peer.remote.read_blob(peer.repository, Digest.of(b""), size=0)) == []


def test_a_download_that_is_cut_continues(peer: Peer) -> None:
    data = os.urandom(LARGE)
    peer.push(data)
    peer.line.cut_after(LARGE // 2)
    received = b"".join(peer.remote.read_blob(peer.repository, Digest.of(data), size=LARGE))
    assert received == data
    assert (peer.line.cuts, peer.line.carried < LARGE * 3 // 2) == (1, True)


def test_an_upload_in_chunks_is_resumed_by_another_client(peer: Peer) -> None:
    data = os.urandom(3_000_000)
    upload = peer.remote.start_upload(peer.repository)
    upload.append(data[:1_000_000])
    resumed = peer.remote.resume_upload(json.loads(json.dumps(upload.state)))
    assert resumed.status() == 1_000_000
    finish_upload(resumed, data)
    assert peer.remote.blob_size(peer.repository, Digest.of(data)) == len(data)


def test_content_is_deleted(peer: Peer) -> None:
    for data in (CONFIG, b"layer"):
        peer.push(data)
    digest = peer.put("1", image_manifest(CONFIG, [b"layer"]))
    assert peer.remote.delete_manifest(peer.repository, digest)
    assert peer.remote.get_manifest(peer.repository, digest) is None
    assert not peer.remote.delete_manifest(peer.repository, digest)


def test_a_manifest_whose_content_is_missing_is_refused(peer: Peer) -> None:
    with pytest.raises(RemoteRefused) as refused:
        peer.put("1", image_manifest(CONFIG, [b"missing"]))
    assert (refused.value.status, refused.value.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_downloads_are_redirected_to_the_storage(minio: S3Server, tmp_path: Path) -> None:
    # given distribution on S3, which redirects to URLs that are signed for one method, at another origin
    parts = urlsplit(minio.url())
    bucket = parts.path.strip("/")
    Minio(minio.endpoint, access_key=parts.username, secret_key=parts.password, secure=False).make_bucket(
        bucket
    )
    storage = (
        f"s3: {{regionendpoint: 'http://localhost:{minio.port}', region: us-east-1, bucket: {bucket}, "
        f"accesskey: {parts.username}, secretkey: {parts.password}, secure: false, forcepathstyle: true}}"
    )
    data = os.urandom(3_000_000)
    digest = Digest.of(data)
    with (
        running_registry("distribution-registry", tmp_path, storage=storage) as host,
        RemoteRegistry(f"http://{host}", egress=EgressPolicy.parse("127.0.0.1, localhost")) as remote,
    ):
        # then a blob is uploaded, found and read, and a part of it
        send_blob(remote, "team/app", data)
        assert remote.blob_size("team/app", digest) == len(data)
        assert b"".join(remote.read_blob("team/app", digest, size=len(data))) == data
        assert b"".join(remote.read_blob("team/app", digest, size=len(data), start=100)) == data[100:]

        # and nothing is read if only the registry may be connected to
        with RemoteRegistry(f"http://{host}", egress=EgressPolicy.parse(host)) as strict:
            strict.check()
            with pytest.raises(EgressRefused, match="localhost has a loopback address"):
                list(strict.read_blob("team/app", digest, size=len(data)))


@pytest.mark.parametrize("program", PEERS)
def test_basic_authentication(program: str, tmp_path: Path) -> None:
    with running_registry(program, tmp_path, htpasswd=_HTPASSWD) as host:
        url = f"http://{host}"
        with RemoteRegistry(url, username="user", password="password", egress=EGRESS) as remote:
            remote.check()
            send_blob(remote, "team/app", b"x")
            assert remote.blob_size("team/app", Digest.of(b"x")) == 1
        with RemoteRegistry(url, username="user", password="wrong", egress=EGRESS) as remote:
            with pytest.raises(RemoteDenied, match="refuses the user name and password"):
                remote.check()
            with pytest.raises(RemoteDenied):
                send_blob(remote, "team/app", b"x")


def test_a_key_without_rights_is_denied(tenants: Tenants) -> None:
    repository = tenants.repository()
    for secret in ("00000000-0000-4000-8000-000000000000", tenants.stranger.secret or ""):
        with (
            RemoteRegistry(
                f"http://{tenants.owner.host}", username="x", password=secret, egress=EGRESS
            ) as remote,
            pytest.raises(RemoteDenied),
        ):
            send_blob(remote, repository, b"x")
