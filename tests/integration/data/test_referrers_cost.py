"""Repeated reads of referrers lists do not slow down the pulls of another tenant."""

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.oci_client import OCI_MANIFEST, OciClient, digest_of, image_manifest
from tests.tenants import Tenants

CLIENTS: Final = 8
PULLS: Final = 60
LIMIT: Final = 0.25  # seconds; a pull takes 1 ms when idle, and took over 1 s without a limit on lists
SUBJECT: Final = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"subject"), "size": 7}
CONFIG: Final = b"{}"

# In a process of its own, because the measured client must not wait for its interpreter lock.
LOAD: Final = """
import http.client, json, secrets, sys, threading, urllib.request
host, repository, path, clients = sys.argv[1:]
scope = f"repository:{repository}:pull"
token = json.load(urllib.request.urlopen(f"http://{host}/token?service=registry&scope={scope}"))["token"]
def read():
    connection = http.client.HTTPConnection(host, timeout=60)
    while True:
        path_of_one = f"/v2/{repository}/{path}&x={secrets.token_hex(8)}"
        connection.request("GET", path_of_one, headers={"Authorization": "Bearer " + token})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            sys.exit(body)
for _ in range(int(clients)):
    threading.Thread(target=read).start()
"""


@contextmanager
def reading(host: str, repository: str, path: str) -> Iterator[None]:
    """Anonymous clients repeat an uncacheable request in another process."""
    load = subprocess.Popen([sys.executable, "-c", LOAD, host, repository, path, str(CLIENTS)])
    try:
        time.sleep(1)
        yield
        assert load.poll() is None, "the clients have stopped"
    finally:
        load.kill()
        load.wait()


def median_pull(client: OciClient, repository: str) -> float:
    """The median duration of an uncacheable GET of a manifest, in seconds."""
    times = []
    for _ in range(PULLS):
        begun = time.monotonic()
        response = client.on(repository, "GET", f"manifests/latest?x={secrets.token_hex(8)}")
        times.append(time.monotonic() - begun)
        assert response.status_code == 200
    return statistics.median(times)


def push_referrers(client: OciClient, repository: str, count: int, annotations: dict[str, str]) -> None:
    client.push_blob(repository, CONFIG)
    for number in range(count):
        manifest = image_manifest(
            CONFIG, [], subject=SUBJECT, annotations={**annotations, "number": f"{number:03}"}
        )
        assert client.put_manifest(repository, f"r{number}", manifest).status_code == 201


@pytest.mark.serial
@pytest.mark.parametrize(
    ("count", "annotations", "query"),
    [
        (1, {f"{number:03}": "x" * 250 for number in range(999)}, "n=1"),
        (20, {f"{number:03}": "x" * 250 for number in range(999)}, "n=1000"),
        (300, {}, "n=1000"),
        (300, {}, "n=1000&artifactType=application/none"),
    ],
    ids=["one large", "several large", "many small", "many small of another type"],
)
def test_lists_of_referrers_do_not_slow_down_pulls_of_other_tenants(
    tenants: Tenants, count: int, annotations: dict[str, str], query: str
) -> None:
    # given a public image with the largest allowed list of referrers, and an image of another tenant
    attacked, other = tenants.repository(is_public=True), tenants.strangers_repository()
    push_referrers(tenants.owner, attacked, count, annotations)
    tenants.stranger.push_image(other, "latest", b"layer")
    alone = median_pull(tenants.stranger, other)

    # when anonymous clients read the list without a pause
    with reading(tenants.anonymous.host, attacked, f"referrers/{SUBJECT['digest']}?{query}"):
        beside = median_pull(tenants.stranger, other)

    # then a pull of the other tenant stays below the limit
    print(f"median pull: {alone * 1000:.1f} ms alone, {beside * 1000:.1f} ms beside {CLIENTS} clients")
    assert beside < LIMIT


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (lambda: {str(number): "" for number in range(1001)}, "1001 annotations; 1000 at most"),
        (lambda: {"long": "x" * 262_144}, "262148 bytes; 262144 at most"),
        (lambda: {f"{number:06}": "" for number in range(250_000)}, "too many fields and entries"),
    ],
)
def test_a_manifest_with_too_many_annotations_is_rejected(
    tenants: Tenants, annotations: Callable[[], dict[str, str]], message: str
) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, CONFIG)
    response = tenants.owner.put_manifest(
        repository, "latest", image_manifest(CONFIG, [], annotations=annotations(), subject=SUBJECT)
    )
    assert response.status_code == 400
    assert response.json()["errors"][0]["code"] == "MANIFEST_INVALID"
    assert message in response.json()["errors"][0]["message"]
