"""No response of a registry makes the client connect to an address that the policy does not allow."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import EgressRefused, RemoteDenied, RemoteRefused
from registry_data.client.registry import RemoteRegistry
from registry_data.oci.digest import Digest
from tests.services.remote import send_blob
from tests.services.scripted import Exchange, Script, replying

BLOB: Final = b"content"
DIGEST: Final = Digest.of(BLOB)
ROOT: Final = Path(__file__).parents[3]
Connect = Callable[..., RemoteRegistry]

FORMS: Final = (
    "127.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "localhost",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "[64:ff9b::7f00:1]",
    "0.0.0.0",
    "[::]",
)


def at_internal(form: str, internal: Script) -> str:
    return f"http://{form}:{internal.host.rpartition(':')[2]}/latest/meta-data?secret=1"


@pytest.mark.parametrize("form", FORMS)
def test_a_redirect_to_an_internal_address_is_refused(
    registry: Script, remote: RemoteRegistry, internal: Script, form: str
) -> None:
    registry.on("GET", replying(307, Location=at_internal(form, internal)))
    registry.on("HEAD", replying(307, Location=at_internal(form, internal)))
    for call in (
        lambda: b"".join(remote.read_blob("a/b", DIGEST, size=len(BLOB))),
        lambda: remote.get_manifest("a/b", "1"),
        lambda: remote.head_manifest("a/b", "1"),
        lambda: remote.blob_size("a/b", DIGEST),
        lambda: list(remote.tags("a/b")),
        lambda: remote.referrers("a/b", DIGEST),
    ):
        # httpx accepts no octal form, so it is a malformed location.
        with pytest.raises((EgressRefused, RemoteRefused)) as refused:
            call()
        assert "secret" not in str(refused.value)
        assert isinstance(refused.value, EgressRefused) or form == "0177.0.0.1"


def test_a_redirect_is_followed_to_an_address_that_is_refused_only_at_the_end(
    registry: Script, storage: Script, remote: RemoteRegistry, internal: Script
) -> None:
    registry.on("GET", replying(302, Location=f"http://{storage.host}/next"))
    storage.on("GET", replying(302, Location=f"http://{internal.host}/"))
    with pytest.raises(EgressRefused, match=r"127\.0\.0\.1 has a loopback address.*REGISTRY_EGRESS_ALLOW"):
        remote.get_manifest("a/b", "1")
    assert storage.lines() == ["GET /next"]


@pytest.mark.parametrize("form", FORMS)
def test_a_token_server_at_an_internal_address_is_refused(
    registry: Script, connect: Connect, internal: Script, form: str
) -> None:
    challenge = f'Bearer realm="{at_internal(form, internal)}",service="x"'
    registry.on("GET", replying(401, WWW_Authenticate=challenge))
    with pytest.raises((EgressRefused, RemoteRefused)):
        connect(username="u", password="p").check()


def test_an_upload_location_at_an_internal_address_is_refused(
    registry: Script, remote: RemoteRegistry, internal: Script
) -> None:
    registry.on("POST", replying(202, Location=f"http://{internal.host}/upload"))
    with pytest.raises(EgressRefused):
        send_blob(remote, "a/b", BLOB)
    upload = remote.start_upload("a/b")
    with pytest.raises(EgressRefused):
        upload.append(BLOB)
    with pytest.raises(EgressRefused):
        upload.status()
    assert remote.mount_blob("a/b", DIGEST, source="c/d") is False  # the upload cannot be cancelled


def test_an_upload_location_that_moves_to_an_internal_address_is_refused(
    registry: Script, remote: RemoteRegistry, internal: Script
) -> None:
    registry.on("POST", replying(202, Location="/upload"))
    registry.on("PATCH", replying(202, Location=f"http://{internal.host}/upload", Range="0-0"))
    upload = remote.start_upload("a/b")
    upload.append(BLOB)
    with pytest.raises(EgressRefused):
        upload.append(BLOB)


def test_links_stay_at_the_registry(registry: Script, storage: Script, remote: RemoteRegistry) -> None:
    registry.on("GET", replying(200, b'{"tags": ["1"]}', Link=f'<http://{storage.host}/tags>; rel="next"'))
    with pytest.raises(RemoteRefused, match="continues the tags of a/b at"):
        list(remote.tags("a/b"))
    assert storage.lines() == []


def test_requests_other_than_reads_follow_no_redirects(
    registry: Script, storage: Script, remote: RemoteRegistry
) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        registry.on(method, replying(307, Location=f"http://{storage.host}/"))
    with pytest.raises(RemoteRefused, match="answered 307"):
        remote.start_upload("a/b")
    with pytest.raises(RemoteRefused, match="answered 307"):
        remote.delete_manifest("a/b", "1")
    assert storage.lines() == []


def test_redirects_in_a_circle_end(registry: Script, remote: RemoteRegistry) -> None:
    registry.on("GET", replying(307, Location="/again"))
    with pytest.raises(RemoteRefused, match="redirected more than 5 times"):
        remote.get_manifest("a/b", "1")
    assert len(registry.requests) == 6


def test_another_origin_gets_no_credentials(registry: Script, storage: Script, connect: Connect) -> None:
    def protected(exchange: Exchange) -> None:
        if "authorization" not in exchange.received.headers:
            exchange.reply(401, WWW_Authenticate="Basic realm=x")
        elif exchange.received.method == "POST":
            exchange.reply(202, Location=f"http://{storage.host}/upload?signature=1")
        else:
            exchange.reply(307, Location=f"http://{storage.host}/blob?signature=1")

    registry.on("", protected)
    storage.on("GET", replying(200, BLOB))
    storage.on("PUT", replying(201))
    remote = connect(username="u", password="p")
    assert b"".join(remote.read_blob("a/b", DIGEST, size=len(BLOB))) == BLOB
    remote.start_upload("a/b").finish(DIGEST, BLOB)
    assert storage.lines() == ["GET /blob?signature=1", f"PUT /upload?signature=1&digest={DIGEST}"]
    assert [request.headers.get("authorization") for request in storage.requests] == [None, None]
    assert registry.requests[-1].headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


def test_a_redirected_token_request_is_refused(registry: Script, storage: Script, connect: Connect) -> None:
    registry.on("GET /v2/", replying(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    registry.on("GET /token", replying(307, Location=f"http://{storage.host}/token"))
    with pytest.raises(RemoteRefused, match="answered 307 for a token"):
        connect(username="u", password="p").check()
    assert storage.lines() == []


def test_proxies_of_the_environment_are_not_used(
    registry: Script, remote: RemoteRegistry, internal: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{internal.host}")
    registry.on("GET /v2/", replying(200))
    with RemoteRegistry(f"http://{registry.host}", egress=EgressPolicy.parse("127.0.0.2")) as fresh:
        fresh.check()
    remote.check()
    assert len(registry.requests) == 2


_IN_NAMESPACE: Final = """
printf '198.41.0.4 mixed.test\\n127.0.0.1 mixed.test\\n198.41.0.4 public.test\\n' > {folder}/hosts &&
mount --bind {folder}/hosts /etc/hosts &&
printf 'nameserver 127.0.0.1\\n' > {folder}/resolv.conf &&
mount --bind {folder}/resolv.conf /etc/resolv.conf &&
exec {python} -m tests.integration.client.names
"""


def test_a_name_is_resolved_once_and_refused_if_any_address_is_internal(tmp_path: Path) -> None:
    """With a name server of its own, in namespaces of its own: see names.py."""
    script = _IN_NAMESPACE.format(folder=tmp_path, python=sys.executable)
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "--net", "sh", "-ec", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.stderr.startswith("unshare: "):
        pytest.skip(f"needs namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "public.test": "200",
        "mixed.test": "EgressRefused",
        "rebinding.test": "200",
        "rebinding.test again": "EgressRefused",
        "requests to the public address": ["public.test", "rebinding.test"],
        "requests to the loopback address": [],
        "queries for rebinding.test": 2,
    }


def test_a_refusal_of_credentials_is_final(registry: Script, connect: Connect) -> None:
    registry.on("", replying(401, WWW_Authenticate="Basic realm=x"))
    with pytest.raises(RemoteDenied, match="refuses the user name and password"):
        connect(username="u", password="secret-password").check()
    assert len(registry.requests) == 2
    with pytest.raises(RemoteDenied, match="requires a user name"):
        connect().check()
