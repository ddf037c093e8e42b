"""Authentication, downloads and uploads, with the variants that registries use."""

import itertools
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import (
    ContentMismatch,
    RemoteDenied,
    RemoteRefused,
    RemoteUnavailable,
    UploadLost,
)
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from registry_data.oci.errors import ProtocolError
from registry_data.oci.manifest import Descriptor
from registry_data.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.services.certificates import make_certificates
from tests.services.remote import finish_upload
from tests.services.scripted import Exchange, Script, replying, running_script

BLOB: Final = bytes(range(256)) * 10_000
DIGEST: Final = Digest.of(BLOB)
Connect = Callable[..., RemoteRegistry]


class TokenServer:
    """Issues tokens t1, t2, ... in its own script, and accepts those that are in `valid`."""

    def __init__(self, registry: Script, **token: Any) -> None:
        self.valid: set[str] = set()
        self._numbers = itertools.count(1)
        self._token = token
        self._challenge = (
            f'Bearer realm="http://{registry.host}/token?a=b",service="the service",scope="x:y:z"'
        )
        registry.on("GET /token", self._issue)

    def protecting(self, answer: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
        def protected(exchange: Exchange) -> None:
            if exchange.received.headers.get("authorization", "").removeprefix("Bearer ") in self.valid:
                answer(exchange)
            else:
                exchange.reply(401, WWW_Authenticate=self._challenge)

        return protected

    def _issue(self, exchange: Exchange) -> None:
        token = f"t{next(self._numbers)}"
        self.valid.add(token)
        exchange.reply(200, json.dumps({"token": token} | self._token).encode())


def test_tokens_are_requested_once_for_each_scope(registry: Script, connect: Connect) -> None:
    tokens = TokenServer(registry, expires_in=300)
    registry.on("HEAD", tokens.protecting(replying(404)))
    remote = connect(username="us er", password="p:w")
    for name in ("a/b", "a/b", "c", "a/b"):
        assert remote.head_manifest(name, "1") is None
    requested = [request for request in registry.requests if request.path.startswith("/token")]
    assert [request.path for request in requested] == [
        "/token?a=b&service=the+service&scope=repository%3Aa%2Fb%3Apull&scope=x%3Ay%3Az",
        "/token?a=b&service=the+service&scope=repository%3Ac%3Apull",
    ]
    assert {request.headers["authorization"] for request in requested} == {"Basic dXMgZXI6cDp3"}
    assert len(registry.requests) == 7  # four answers, two tokens, one challenge


def test_a_token_that_is_no_longer_accepted_is_renewed_once(registry: Script, connect: Connect) -> None:
    tokens = TokenServer(registry, expires_in=300)
    registry.on("HEAD", tokens.protecting(replying(404)))
    remote = connect()
    remote.head_manifest("a/b", "1")
    tokens.valid.clear()
    assert remote.head_manifest("a/b", "1") is None
    registry.on("HEAD", replying(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    before = len(registry.requests)
    with pytest.raises(RemoteDenied):
        remote.head_manifest("a/b", "1")
    assert len(registry.requests) == before + 3


def test_a_token_is_renewed_before_it_expires(registry: Script, connect: Connect) -> None:
    tokens = TokenServer(registry, expires_in=0)  # at least 60 s are assumed, as the specification says
    registry.on("HEAD", tokens.protecting(replying(404)))
    remote = connect()
    for _ in range(3):
        remote.head_manifest("a/b", "1")
    assert len([line for line in registry.lines() if "/token" in line]) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_server_that_refuses_is_a_denial(registry: Script, connect: Connect, status: int) -> None:
    registry.on("GET /v2/", replying(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    registry.on("GET /token", replying(status, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong"}]}'))
    with pytest.raises(RemoteDenied, match=r"refuses the user name.*\(UNAUTHORIZED: wrong\)") as denied:
        connect(username="u", password="p").check()
    assert denied.value.status == status


def test_a_token_server_that_fails_is_temporary(registry: Script, connect: Connect) -> None:
    registry.on("GET /v2/", replying(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    registry.on("GET /token", replying(503, Retry_After="3"))
    with pytest.raises(RemoteUnavailable) as failed:
        connect().check()
    assert failed.value.retry_after == 3


def test_a_signature_that_a_storage_refuses_is_temporary(
    registry: Script, storage: Script, remote: RemoteRegistry
) -> None:
    registry.on("GET", replying(307, Location=f"http://{storage.host}/blob"))
    storage.on("GET", replying(403))
    with pytest.raises(RemoteUnavailable):
        list(remote.read_blob("a/b", DIGEST, size=len(BLOB)))


@pytest.mark.parametrize("realm", ["", "token", "file:///etc/passwd", "http://a:b/"])
def test_a_challenge_without_a_usable_token_server_is_refused(
    registry: Script, connect: Connect, realm: str
) -> None:
    registry.on("GET", replying(401, WWW_Authenticate=f'Bearer realm="{realm}"'))
    with pytest.raises(RemoteRefused):
        connect().check()


def test_tls_is_verified_and_a_token_server_without_it_is_refused(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.server_key)
    egress = EgressPolicy.parse("127.0.0.1")
    with running_script("127.0.0.1") as plain, running_script("127.0.0.1", tls=context) as registry:
        url = f"https://{registry.host}"
        registry.on("GET", replying(200))
        with (
            RemoteRegistry(url, egress=egress) as verifying,
            pytest.raises(
                RemoteUnavailable, match=r"the certificate of 127\.0\.0\.1 is not trusted .*set `insecure`"
            ),
        ):
            verifying.check()
        with RemoteRegistry(url, insecure=True, egress=egress, username="u", password="p") as insecure:
            insecure.check()
            # Port and host differ only in the scheme: without TLS, nothing is sent.
            realm = f"http://localhost:{plain.host.rpartition(':')[2]}/token"
            registry.on("GET", replying(401, WWW_Authenticate=f'Bearer realm="{realm}"'))
            with pytest.raises(RemoteRefused, match="without TLS"):
                insecure.check()
        assert plain.lines() == []


def test_a_check_names_the_url_to_which_a_registry_redirects(
    registry: Script, remote: RemoteRegistry
) -> None:
    registry.on("GET /v2/", replying(301, Location="https://registry.example/v2/?secret=1"))
    with pytest.raises(RemoteRefused, match=r"redirects to https://registry\.example/: use its URL"):
        remote.check()


@pytest.mark.parametrize(
    "location",
    ["http://[", "http://a:b/", "http://xn--a/", "http://256.1.1.1/", "//", "ftp://x", "https://x:99999999/"],
)
def test_a_check_with_a_malformed_redirect_is_refused(
    registry: Script, remote: RemoteRegistry, location: str
) -> None:
    registry.on("GET /v2/", replying(302, Location=location))
    with pytest.raises(RemoteRefused):
        remote.check()


@pytest.mark.parametrize(
    "url", ["registry.example", "ftp://x", "https://", "https://u:p@x", "https://x/v2", "http://a:b"]
)
def test_a_url_of_another_form_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        RemoteRegistry(url, egress=EgressPolicy())


def test_docker_hub_has_another_host_and_a_library() -> None:
    with RemoteRegistry("https://docker.io", egress=EgressPolicy()) as remote:
        assert remote._connection.host == "registry-1.docker.io"  # noqa: SLF001 - nothing can be sent
        assert remote._connection.full_name("alpine") == "library/alpine"  # noqa: SLF001
        assert remote._connection.full_name("a/b") == "a/b"  # noqa: SLF001


@pytest.mark.parametrize("name", ["../x", "a//b", "A", "", "a/../b", "a?b", "a b", "x" * 256])
def test_malformed_names_are_not_sent(registry: Script, remote: RemoteRegistry, name: str) -> None:
    with pytest.raises(ProtocolError):
        remote.head_manifest(name, "1")
    with pytest.raises(ProtocolError):
        remote.head_manifest("a/b", f"{name}/")
    assert registry.lines() == []


def test_a_manifest_head_without_digest_or_length_is_completed_by_a_get(
    registry: Script, remote: RemoteRegistry
) -> None:
    registry.on("HEAD", lambda exchange: exchange.reply(200, Content_Type=OCI_INDEX))
    registry.on("GET", replying(200, b"{}", Content_Type=f"{OCI_INDEX}; charset=utf-8"))
    assert remote.head_manifest("a/b", "1") == Descriptor(OCI_INDEX, Digest.of(b"{}"), 2)


def test_a_download_continues_where_it_was_cut(registry: Script, remote: RemoteRegistry) -> None:
    def cut_in_thirds(exchange: Exchange) -> None:
        start = int(exchange.received.headers.get("range", "bytes=0-")[6:-1])
        span = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
        status = 206 if start else 200
        sent = BLOB[start : start + 1_000_000]
        exchange.reply(status, sent, Content_Length=str(len(BLOB) - start), Content_Range=span)
        exchange.cut()

    registry.on("GET", cut_in_thirds)
    assert b"".join(remote.read_blob("a/b", DIGEST, size=len(BLOB))) == BLOB
    assert len(registry.requests) == 3
    assert b"".join(remote.read_blob("a/b", DIGEST, size=len(BLOB), start=5)) == BLOB[5:]


def test_a_registry_without_ranges_sends_the_beginning_again(
    registry: Script, remote: RemoteRegistry
) -> None:
    lengths = itertools.chain([1000], itertools.repeat(len(BLOB)))

    def first_cut(exchange: Exchange) -> None:
        exchange.reply(200, BLOB[: next(lengths)], Content_Length=str(len(BLOB)))
        exchange.cut()

    registry.on("GET", first_cut)
    assert b"".join(remote.read_blob("a/b", DIGEST, size=len(BLOB))) == BLOB
    registry.on("GET", replying(206, BLOB[100:], Content_Range=f"bytes 100-{len(BLOB) - 1}/{len(BLOB)}"))
    with pytest.raises(RemoteRefused, match="another range"):
        list(remote.read_blob("a/b", DIGEST, size=len(BLOB), start=50))


@pytest.mark.parametrize(
    ("status", "headers", "size"),
    [
        (206, {"Content_Range": "bytes 0-0/12345"}, 12345),
        (416, {"Content_Range": "bytes */0"}, 0),
        (404, {}, None),
    ],
)
def test_the_size_of_a_blob_whose_head_is_redirected(
    registry: Script,
    storage: Script,
    remote: RemoteRegistry,
    status: int,
    headers: dict[str, str],
    size: int | None,
) -> None:
    registry.on("", replying(307, Location=f"http://{storage.host}/"))
    storage.on("GET", replying(status, b"", **headers))
    assert remote.blob_size("a/b", DIGEST) == size


class Uploads:
    """Upload sessions of a scripted registry."""

    def __init__(self, registry: Script) -> None:
        self.stored = b""
        self.started = 0
        registry.on("POST", self._start)
        registry.on("GET /session", lambda exchange: self._reply(exchange, 204))
        registry.on("PATCH /session", self._append)
        registry.on("PUT /session", self._finish)

    def _start(self, exchange: Exchange) -> None:
        self.started += 1
        self.stored = b""
        self._reply(exchange, 202)

    def _append(self, exchange: Exchange) -> None:
        body = exchange.received.body
        first = exchange.received.headers.get("content-range", f"{len(self.stored)}-").partition("-")[0]
        if int(first) != len(self.stored):
            self._reply(exchange, 416)
        else:
            self.stored += body
            self._reply(exchange, 202)

    def _finish(self, exchange: Exchange) -> None:
        self.stored += exchange.received.body
        exchange.reply(201, Docker_Content_Digest=str(Digest.of(self.stored)))

    def _reply(self, exchange: Exchange, status: int) -> None:
        location = f"/session?offset={len(self.stored)}"
        exchange.reply(status, Location=location, Range=f"0-{max(0, len(self.stored) - 1)}")


def test_another_process_resumes_an_upload(registry: Script, connect: Connect) -> None:
    uploads = Uploads(registry)
    first = connect().start_upload("a/b")
    first.append(BLOB[:700])
    state = json.loads(json.dumps(first.state))
    resumed = connect().resume_upload(state)
    assert resumed.status() == 700
    finish_upload(resumed, BLOB)
    assert (uploads.started, uploads.stored == BLOB) == (1, True)
    assert "PATCH /session?offset=700" in registry.lines()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "BLOB_UPLOAD_UNKNOWN"),
        (404, ""),
        (400, "BLOB_UPLOAD_INVALID"),
        (416, "RANGE_INVALID"),
        (416, ""),
    ],
)
def test_an_upload_that_ends_in_between_is_lost(
    registry: Script, remote: RemoteRegistry, status: int, code: str
) -> None:
    Uploads(registry)
    body = json.dumps({"errors": [{"code": code, "message": "gone"}]} if code else {}).encode()
    upload = remote.start_upload("a/b")
    upload.append(BLOB[:10])
    for method in ("GET", "PATCH", "PUT"):
        registry.on(f"{method} /session\\?offset=10", replying(status, body))
    with pytest.raises(UploadLost):
        upload.append(BLOB[10:])
    with pytest.raises(UploadLost):
        upload.finish(DIGEST)


def test_a_chunk_at_another_offset_is_not_stored(registry: Script, remote: RemoteRegistry) -> None:
    uploads = Uploads(registry)
    upload = remote.start_upload("a/b")
    upload.append(b"12345")
    uploads.stored = b"123"  # as after a crash of the registry
    upload.append(b"678")
    assert (upload.offset, uploads.stored) == (3, b"123")
    upload.append(b"45678")
    assert (upload.offset, upload.status(), uploads.stored) == (8, 8, b"12345678")


def test_another_digest_at_the_registry_is_a_mismatch(registry: Script, remote: RemoteRegistry) -> None:
    Uploads(registry)
    with pytest.raises(ContentMismatch):
        remote.start_upload("a/b").finish(DIGEST, bytes(len(BLOB)))
    registry.on("PUT", replying(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}'))
    with pytest.raises(ContentMismatch, match="DIGEST_INVALID"):
        remote.start_upload("a/b").finish(Digest.of(b"x"), b"y")


def test_a_manifest_that_is_not_there_after_the_put_is_a_mismatch(
    registry: Script, remote: RemoteRegistry
) -> None:
    payload = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    registry.on("PUT", replying(201))
    with pytest.raises(ContentMismatch, match="stored other content"):
        remote.put_manifest("a/b", "1", media_type=OCI_INDEX, payload=payload)
    registry.on("PUT", replying(201, Docker_Content_Digest=str(Digest.of(payload, "sha512"))))
    remote.put_manifest("a/b", "1", media_type=OCI_INDEX, payload=payload)


def _referrer(number: int) -> bytes:
    subject = {"mediaType": OCI_MANIFEST, "digest": str(DIGEST), "size": 2}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "artifactType": "application/x",
            "manifests": [],
            "subject": subject,
            "annotations": {"number": str(number)},
        }
    ).encode()


def test_without_the_referrers_api_the_fallback_tag_is_maintained(
    registry: Script, remote: RemoteRegistry
) -> None:
    stored: dict[str, bytes] = {}

    def put(exchange: Exchange) -> None:
        name = exchange.received.path.rpartition("/")[2]
        stored[name] = exchange.received.body
        exchange.reply(201, Docker_Content_Digest=str(Digest.of(exchange.received.body)))

    def get(exchange: Exchange) -> None:
        content = stored.get(exchange.received.path.rpartition("/")[2])
        exchange.reply(404) if content is None else exchange.reply(200, content, Content_Type=OCI_INDEX)

    registry.on("PUT", put)
    registry.on("GET /v2/a/b/manifests", get)
    registry.on("GET /v2/a/b/referrers", replying(404))
    assert remote.referrers("a/b", DIGEST) == []
    payloads = [_referrer(number) for number in range(3)]
    for payload in [*payloads, payloads[0]]:
        remote.put_manifest("a/b", Digest.of(payload), media_type=OCI_INDEX, payload=payload)
    listed = remote.referrers("a/b", DIGEST)
    assert [entry.digest for entry in listed] == [Digest.of(payload) for payload in payloads]
    tag = json.loads(stored[f"sha256-{DIGEST.encoded}"])
    assert tag["manifests"][1] == {
        "mediaType": OCI_INDEX,
        "digest": str(Digest.of(payloads[1])),
        "size": len(payloads[1]),
        "artifactType": "application/x",
        "annotations": {"number": "1"},
    }


def test_the_referrers_api_is_used_with_its_pages(registry: Script, remote: RemoteRegistry) -> None:
    def page(number: int) -> bytes:
        entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"%d" % number)), "size": 1}
        return json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()

    registry.on("GET .*page=2", replying(200, page(2)))
    registry.on("GET [^?]*$", replying(200, page(1), Link="<?page=2>; rel=next"))
    assert [entry.digest for entry in remote.referrers("a/b", DIGEST)] == [Digest.of(b"1"), Digest.of(b"2")]
    registry.on(
        "PUT", replying(201, OCI_Subject=str(DIGEST), Docker_Content_Digest=str(Digest.of(_referrer(1))))
    )
    remote.put_manifest("a/b", "1", media_type=OCI_INDEX, payload=_referrer(1))
    assert registry.lines()[-1].startswith("PUT")  # no fallback tag
