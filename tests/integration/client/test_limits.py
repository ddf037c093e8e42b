"""What a registry sends costs bounded time and memory, and nothing that it sends is believed unverified."""

import gzip
import itertools
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import httpx
import pytest

from registry_data.client import network, uploads
from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import ContentMismatch, RemoteError, RemoteRefused, RemoteUnavailable
from registry_data.client.registry import RemoteRegistry
from registry_data.client.sending import Sender
from registry_data.oci.digest import Digest
from registry_data.oci.media_types import OCI_MANIFEST
from tests.services.scripted import Answer, Exchange, Script, replying

BLOB: Final = bytes(range(256)) * 1000
DIGEST: Final = Digest.of(BLOB)
ZEROS: Final = bytes(64 * 1024)


def endless(start: bytes, more: bytes, **headers: str) -> Answer:
    """Begin a body and repeat `more` until the client goes away."""

    def answer(exchange: Exchange) -> None:
        exchange.send_response(200)
        for name, value in headers.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.cut()
        exchange.wfile.write(start)
        while True:
            exchange.wfile.write(more)

    return answer


def test_a_body_without_end_is_refused(registry: Script, remote: RemoteRegistry) -> None:
    registry.on("GET", endless(b'{"tags": ["', ZEROS))
    tracemalloc.start()
    for call in (
        lambda: remote.get_manifest("a/b", "1"),
        lambda: list(remote.tags("a/b")),
        lambda: list(remote.catalog()),
        lambda: remote.referrers("a/b", DIGEST),
    ):
        with pytest.raises(RemoteRefused, match=r"more than (4194304|16777216) bytes"):
            call()
    with pytest.raises(ContentMismatch, match=f"more than the {len(BLOB)} bytes"):
        list(remote.read_blob("a/b", DIGEST, size=len(BLOB)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 1024 * 1024


def test_a_registry_may_send_all_tags_in_one_page(registry: Script, remote: RemoteRegistry) -> None:
    tags = [f"{number:040x}" for number in range(100_000)]
    registry.on("GET", replying(200, json.dumps({"name": "a/b", "tags": tags}).encode()))
    assert list(remote.tags("a/b")) == tags


def test_an_error_and_a_token_without_end_are_cut_off(
    registry: Script, connect: Callable[..., RemoteRegistry]
) -> None:
    registry.on("GET /v2/", replying(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    registry.on("GET /token", endless(b'{"token": "', b"a" * 1000))
    with pytest.raises(RemoteRefused, match="more than"):
        connect().check()
    registry.on("GET /token", replying(200, json.dumps({"token": "a\r\nX-Injected: 1"}).encode()))
    with pytest.raises(RemoteRefused, match="sent no token"):
        connect().check()


def test_pages_without_end_are_refused(registry: Script, remote: RemoteRegistry) -> None:
    numbers = itertools.count()
    registry.on("GET", lambda exchange: exchange.reply(
        200, b'{"tags": ["1"]}', Link=f'</v2/a/b/tags/list?last={next(numbers)}>; rel="next"'
    ))  # fmt: skip
    with pytest.raises(RemoteRefused, match="more than 2000 pages of the tags of a/b"):
        list(remote.tags("a/b"))
    assert len(registry.requests) == 2000


def test_referrers_without_end_are_refused(registry: Script, remote: RemoteRegistry) -> None:
    numbers = itertools.count()
    entry = {"mediaType": "a/b", "digest": str(DIGEST), "size": 1, "annotations": {"a": "b" * 4_000_000}}
    page = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    registry.on("GET", lambda exchange: exchange.reply(
        200, page, Link=f'<?page={next(numbers)}>; rel="next"'
    ))  # fmt: skip
    with pytest.raises(RemoteRefused, match="bytes of referrers"):
        remote.referrers("a/b", DIGEST)
    assert len(registry.requests) < 20


def test_pages_in_a_circle_are_refused(registry: Script, remote: RemoteRegistry) -> None:
    registry.on(
        "GET .*last", replying(200, b'{"tags": ["2"]}', Link='</v2/a/b/tags/list?n=1000>; rel="next"')
    )
    registry.on("GET .*n=", replying(200, b'{"tags": ["1"]}', Link='<list?last=1>; rel="next"'))
    with pytest.raises(RemoteRefused, match="in a circle"):
        list(remote.tags("a/b"))


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"tags": {}}', b"<html>", b"\xff", b"[" * 100_000, b""])
def test_a_malformed_list_is_refused(registry: Script, remote: RemoteRegistry, body: bytes) -> None:
    registry.on("GET", replying(200, body))
    with pytest.raises(RemoteRefused, match="malformed list"):
        list(remote.tags("a/b"))


def test_names_that_are_none_are_left_out(registry: Script, remote: RemoteRegistry) -> None:
    listed = {"tags": ["1", "../../x", "", 5, None, "a b", "2"], "repositories": ["a/b", "../x", "A", "c"]}
    registry.on("GET", replying(200, json.dumps(listed).encode()))
    assert list(remote.tags("a/b")) == ["1", "2"]
    assert list(remote.catalog()) == ["a/b", "c"]
    registry.on("GET", replying(200, b'{"tags": null}'))
    assert list(remote.tags("a/b")) == []


@pytest.mark.parametrize("sent", [b"other content", BLOB[:-1] + b"x"])
def test_other_content_is_refused(registry: Script, remote: RemoteRegistry, sent: bytes) -> None:
    registry.on("GET", replying(200, sent, Content_Type=OCI_MANIFEST))
    with pytest.raises(ContentMismatch):
        list(remote.read_blob("a/b", DIGEST, size=len(BLOB)))
    with pytest.raises(ContentMismatch):
        remote.get_manifest("a/b", DIGEST)
    registry.on("GET", replying(200, sent, Docker_Content_Digest=str(DIGEST)))
    with pytest.raises(ContentMismatch):
        remote.get_manifest("a/b", "1")


def test_a_body_shorter_than_announced_is_temporary(registry: Script, remote: RemoteRegistry) -> None:
    def cut(exchange: Exchange) -> None:
        exchange.reply(200, BLOB[:1000], Content_Length=str(len(BLOB)))
        exchange.cut()

    registry.on("GET", cut)
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        list(remote.read_blob("a/b", DIGEST, size=len(BLOB)))
    assert len(registry.requests) == 4  # three more without another byte
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        remote.get_manifest("a/b", "1")


def test_content_codings_are_not_accepted(registry: Script, remote: RemoteRegistry) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    registry.on("GET", replying(200, bomb, Content_Encoding="gzip"))
    for call in (
        lambda: remote.get_manifest("a/b", "1"),
        lambda: list(remote.tags("a/b")),
        lambda: list(remote.read_blob("a/b", DIGEST, size=len(BLOB))),
    ):
        with pytest.raises(RemoteRefused, match="compressed a response"):
            call()
    assert {request.headers["accept-encoding"] for request in registry.requests} == {"identity"}


def dripping_headers(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    drip(exchange)


def dripping_body(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    drip(exchange)


def endless_interim_responses(exchange: Exchange) -> None:
    while True:
        exchange.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.02)


def drip(exchange: Exchange) -> None:
    for _ in range(400):
        exchange.wfile.write(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [dripping_headers, dripping_body, endless_interim_responses])
def test_a_response_has_a_time_limit_however_it_arrives(registry: Script, answer: Answer) -> None:
    registry.on("GET", answer)
    sender = Sender(EgressPolicy.parse("127.0.0.2"), insecure=False, user_agent="test")
    started = time.monotonic()
    with (
        pytest.raises(RemoteUnavailable, match=r"took too long|timeout"),
        sender.send("GET", httpx.URL(f"http://{registry.host}/"), timeout=0.5) as response,
    ):
        sender.body(response, limit=1_000_000)
    assert 0.4 < time.monotonic() - started < 3
    sender.close()


def test_a_blob_may_take_long_but_not_a_byte_at_a_time(
    registry: Script, remote: RemoteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_PACE_WINDOW", 0.5)
    registry.on("GET", dripping_body)
    with pytest.raises(RemoteUnavailable, match="too slowly"):
        list(remote.read_blob("a/b", DIGEST, size=1_000_000))
    assert len(registry.requests) == 4


def test_an_upload_that_is_read_too_slowly_ends(
    registry: Script, remote: RemoteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_PACE_WINDOW", 0.2)
    monkeypatch.setattr(network, "_SLOWEST", 1 << 40)  # no connection is as fast
    registry.on("POST", replying(202, Location="/upload"))
    registry.on("PATCH", replying(202, Location="/upload"))
    upload = remote.start_upload("a/b")

    def slow() -> Callable[[], list[bytes]]:
        return lambda: [bytes(1024 * 1024)] * 2000

    with pytest.raises(RemoteUnavailable, match="too slowly"):
        upload.append(slow(), 2000 * 1024 * 1024)


def test_the_last_request_of_an_upload_waits_by_the_size_of_the_blob(
    registry: Script, remote: RemoteRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "ANSWER_TIMEOUT", 0.1)
    monkeypatch.setattr(uploads, "_COPY_RATE", 1000)  # bytes per second
    registry.on("POST", replying(202, Location="/upload"))
    registry.on("PUT", lambda _: time.sleep(1.5))
    for size, longest in ((10, 0.6), (600, 1.3)):
        upload, started = remote.start_upload("a/b"), time.monotonic()
        with pytest.raises(RemoteUnavailable, match="read timeout"):
            upload.finish(DIGEST, bytes(size))
        assert 0.1 + size / 1000 <= time.monotonic() - started < longest


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [(429, {"Retry_After": "7"}, 7), (503, {}, None), (500, {}, None), (502, {"Retry_After": "x"}, None)],
)
def test_temporary_failures_say_when_to_try_again(
    registry: Script, remote: RemoteRegistry, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    registry.on("", replying(status, b"", **headers))
    with pytest.raises(RemoteUnavailable) as failed:
        remote.head_manifest("a/b", "1")
    assert (failed.value.status, failed.value.retry_after) == (status, seconds)


def test_a_date_as_time_to_wait(registry: Script, remote: RemoteRegistry) -> None:
    registry.on("", replying(503, Retry_After="Wed, 21 Oct 2065 07:28:00 GMT"))
    with pytest.raises(RemoteUnavailable) as failed:
        remote.check()
    assert (failed.value.retry_after or 0) > 1e9


def test_errors_repeat_the_message_of_the_registry_and_no_secrets(
    registry: Script, connect: Callable[..., RemoteRegistry], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    body = {"errors": [{"code": "NAME_UNKNOWN", "message": "no\x1b[31m such\nproject " + "x" * 1000}]}
    registry.on("GET /v2/", replying(401, WWW_Authenticate="Basic realm=x"))
    remote = connect(username="user", password="secret-password")
    registry.on("GET /storage", replying(404, json.dumps(body).encode()))
    registry.on("GET /v2/a/b/manifests", replying(307, Location="/storage?X-Amz-Signature=secret-signature"))
    registry.on("PUT", replying(404, json.dumps(body).encode()))
    with pytest.raises(RemoteRefused) as refused:
        remote.put_manifest("a/b", "1", media_type=OCI_MANIFEST, payload=_manifest())
    assert str(refused.value).startswith(
        "127.0.0.2 answered 404 for the manifest 1 of a/b (NAME_UNKNOWN: no [31m such project xxx"
    )
    assert len(str(refused.value)) < 400
    assert refused.value.code == "NAME_UNKNOWN"
    failures: list[RemoteError] = [refused.value]
    for call in (remote.check, lambda: list(remote.read_blob("a/b", DIGEST, size=1))):
        with pytest.raises(RemoteError) as failed:
            call()
        failures.append(failed.value)
    texts = [caplog.text, *map(repr, failures), *(repr(failure.__cause__) for failure in failures)]
    assert not [text for text in texts if "secret" in text or "dXNlcjpz" in text]


def test_a_registry_that_does_not_answer_is_unavailable() -> None:
    egress = EgressPolicy.parse("127.0.0.2")
    for url, message in (
        ("http://127.0.0.2:1", r"127\.0\.0\.2 cannot be reached: connect error"),
        ("http://no-such-name.invalid", r"the name no-such-name\.invalid cannot be resolved"),
    ):
        with RemoteRegistry(url, egress=egress) as remote, pytest.raises(RemoteUnavailable, match=message):
            remote.check()


def _manifest() -> bytes:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(DIGEST), "size": len(BLOB)}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
