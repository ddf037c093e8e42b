"""Ranges of blobs, and lists of tags, referrers and the catalog (OCI 39-47, 116-129)."""

import email.policy
import json
import os
from email.message import Message
from email.parser import BytesParser

import httpx
import pytest

from tests.oci_client import OCI_INDEX, digest_of, image_manifest
from tests.tenants import Tenants

DATA = bytes(range(256)) * 8  # 2048 bytes


@pytest.fixture(scope="module")
def blob(tenants: Tenants) -> tuple[str, str]:
    """A repository with DATA as a blob."""
    repository = tenants.repository()
    return repository, tenants.owner.push_blob(repository, DATA)


@pytest.mark.oci(42)
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, 2048),
        ("bytes=-48", 2000, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=-9999", 0, 2048),
        ("bytes=0-0", 0, 1),
    ],
)
def test_a_range_is_sent_exactly(
    tenants: Tenants, blob: tuple[str, str], header: str, start: int, stop: int
) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Range": header})
    assert response.status_code == 206
    assert response.content == DATA[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/2048"
    assert response.headers["content-length"] == str(stop - start)


def parts_of(response: httpx.Response) -> list[tuple[str, bytes]]:
    """The parts of a multipart response, as parsed by Python's email package."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + response.content)
    assert message.get_content_type() == "multipart/byteranges"
    parts = list(message.iter_parts())
    assert {part.get_content_type() for part in parts} == {"application/octet-stream"}
    return [(part["Content-Range"], _content(part)) for part in parts]


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


@pytest.mark.oci(45)
@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-9,20-29", [(0, 10), (20, 30)]),
        ("bytes=-48, 5-5", [(2000, 2048), (5, 6)]),
        ("bytes=0-9,10-19", [(0, 10), (10, 20)]),
        ("bytes=0-9,,5000-6000, 20-", [(0, 10), (20, 2048)]),
        ("bytes=100-199,0-9,150-249", [(0, 10), (100, 250)]),
    ],
)
def test_several_ranges_are_a_multipart_response(
    tenants: Tenants, blob: tuple[str, str], header: str, wanted: list[tuple[int, int]]
) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Range": header})
    assert response.status_code == 206
    assert response.headers["content-length"] == str(len(response.content))
    assert "content-range" not in response.headers
    assert response.headers["docker-content-digest"] == blob[1]
    assert parts_of(response) == [
        (f"bytes {start}-{stop - 1}/2048", DATA[start:stop]) for start, stop in wanted
    ]


@pytest.mark.oci(45)
@pytest.mark.parametrize("header", ["bytes=0-9,5-20", "bytes=5000-6000,0-20", "bytes=3-2,0-20"])
def test_ranges_that_result_in_one_range_are_not_multipart(
    tenants: Tenants, blob: tuple[str, str], header: str
) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Range": header})
    assert (response.status_code, response.headers["content-range"]) == (206, "bytes 0-20/2048")
    assert response.content == DATA[:21]


@pytest.mark.oci(45)
@pytest.mark.parametrize(
    "header", ["bytes=0-9,x", "bytes=", "bytes=,", "bytes=" + ",".join(f"{at}-{at}" for at in range(1025))]
)
def test_a_malformed_or_too_long_list_of_ranges_is_ignored(
    tenants: Tenants, blob: tuple[str, str], header: str
) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Range": header})
    assert (response.status_code, response.content) == (200, DATA)


@pytest.mark.oci(45)
def test_a_list_of_unsatisfiable_ranges_is_416(tenants: Tenants, blob: tuple[str, str]) -> None:
    headers = {"Range": "bytes=5000-,9-3"}
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers=headers)
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */2048")


@pytest.mark.oci(45)
def test_a_thousand_ranges_of_a_large_layer_are_exact(tenants: Tenants) -> None:
    repository, data = tenants.repository(), os.urandom(5 * 1024 * 1024)
    digest = tenants.owner.push_blob(repository, data)
    starts = range(0, len(data), len(data) // 1000)
    header = "bytes=" + ",".join(f"{start}-{start + 4095}" for start in starts)
    response = tenants.owner.on(repository, "GET", f"blobs/{digest}", headers={"Range": header})
    assert response.headers["content-length"] == str(len(response.content))
    assert [content for _, content in parts_of(response)] == [data[start : start + 4096] for start in starts]


@pytest.mark.oci(43)
@pytest.mark.parametrize("header", ["bytes=5000-10000", "bytes=500-0", "bytes=2048-"])
def test_an_unsatisfiable_range_is_416(tenants: Tenants, blob: tuple[str, str], header: str) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */2048"


@pytest.mark.oci(46)
@pytest.mark.parametrize("headers", [{"Range": "lines=1-2"}, {"Range": "bytes=0-9", "If-Range": '"other"'}])
def test_a_range_that_does_not_apply_is_ignored(
    tenants: Tenants, blob: tuple[str, str], headers: dict[str, str]
) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers=headers)
    assert (response.status_code, response.content) == (200, DATA)


@pytest.mark.oci(3, 39)
def test_a_complete_blob_has_accept_ranges(tenants: Tenants, blob: tuple[str, str]) -> None:
    response = tenants.owner.on(blob[0], "GET", f"blobs/{blob[1]}", headers={"Accept-Encoding": "gzip, zstd"})
    assert response.content == DATA
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-length"] == "2048"
    assert "content-encoding" not in response.headers


@pytest.mark.oci(117, 120)
def test_tags_are_listed_in_byte_order_and_in_pages(tenants: Tenants) -> None:
    # given tags whose byte order differs from a locale's order
    repository = tenants.repository()
    names = ["B", "a", "A", "b", "_x", "1.10", "1.9", "a-b", "a.b", "a_b"]
    tenants.owner.push_blob(repository, b"{}")
    for name in names:
        tenants.owner.put_manifest(repository, name, image_manifest(b"{}", []))

    # when all are requested, and page by page through Link headers
    assert tenants.owner.on(repository, "GET", "tags/list").json()["tags"] == sorted(names)
    path, seen = "tags/list?n=3", []
    while path:
        response = tenants.owner.on(repository, "GET", path)
        seen.append(response.json()["tags"])
        path = (
            response.links["next"]["url"].removeprefix(f"/v2/{repository}/")
            if "next" in response.links
            else ""
        )

    # then each tag is listed once
    assert [len(page) for page in seen] == [3, 3, 3, 1]
    assert [name for page in seen for name in page] == sorted(names)


@pytest.mark.oci(118, 119)
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n=0", []),
        ("last=a", ["b", "c"]),
        ("n=1&last=a", ["b"]),
        ("last=aa", ["b", "c"]),
        ("last=c", []),
        ("n=99999999999999999999", ["a", "b", "c"]),
        ("last=%00", ["a", "b", "c"]),
    ],
)
def test_pages_begin_after_last(tenants: Tenants, query: str, expected: list[str]) -> None:
    repository = tenants.repository()
    tenants.owner.push_blob(repository, b"{}")
    for name in "abc":
        tenants.owner.put_manifest(repository, name, image_manifest(b"{}", []))
    assert tenants.owner.on(repository, "GET", f"tags/list?{query}").json()["tags"] == expected


@pytest.mark.oci(116)
def test_tags_of_an_unknown_image_are_unknown(tenants: Tenants) -> None:
    response = tenants.owner.on(tenants.repository(), "GET", "tags/list")
    assert (response.status_code, response.json()["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


@pytest.mark.oci(123, 125, 126, 127, 129)
def test_referrers_are_listed_filtered_and_paged(tenants: Tenants) -> None:
    # given a subject that need not exist, with four referrers of two types
    repository, subject = tenants.repository(), digest_of(os.urandom(5))
    assert tenants.owner.on(repository, "GET", f"referrers/{subject}").json()["manifests"] == []
    tenants.owner.push_blob(repository, b"{}")
    pushed = []
    for number in range(4):
        manifest = image_manifest(
            b"{}",
            [],
            subject={"mediaType": "application/x", "digest": subject, "size": 5},
            artifactType=f"application/vnd.test+{number % 2}",
            annotations={"number": str(number)},
        )
        response = tenants.owner.put_manifest(repository, digest_of(json.dumps(manifest).encode()), manifest)
        assert response.headers["oci-subject"] == subject
        pushed.append(response.headers["docker-content-digest"])

    # when they are requested, then all are listed in order, with artifact type and annotations
    response = tenants.owner.on(repository, "GET", f"referrers/{subject}")
    assert response.headers["content-type"] == OCI_INDEX
    assert [item["digest"] for item in response.json()["manifests"]] == pushed
    assert response.json()["manifests"][1]["artifactType"] == "application/vnd.test+1"
    assert response.json()["manifests"][1]["annotations"] == {"number": "1"}

    # and a filter and a page size limit the list
    one = tenants.owner.on(
        repository, "GET", f"referrers/{subject}", params={"artifactType": "application/vnd.test+1", "n": "1"}
    )
    assert one.headers["oci-filters-applied"] == "artifactType"
    assert [item["digest"] for item in one.json()["manifests"]] == [pushed[1]]
    rest = tenants.owner.on(repository, "GET", one.links["next"]["url"].removeprefix(f"/v2/{repository}/"))
    assert [item["digest"] for item in rest.json()["manifests"]] == [pushed[3]]
    assert "next" not in rest.links

    # and a deleted referrer is no longer listed
    tenants.owner.on(repository, "DELETE", f"manifests/{pushed[0]}")
    left = tenants.owner.on(repository, "GET", f"referrers/{subject}").json()["manifests"]
    assert [item["digest"] for item in left] == pushed[1:]


@pytest.mark.oci(113, 130)
def test_the_fallback_tag_does_not_change_the_list_of_referrers(tenants: Tenants) -> None:
    # given a referrer, and a manifest without a subject
    repository, subject = tenants.repository(), digest_of(os.urandom(5))
    tenants.owner.push_blob(repository, b"{}")
    reference = {"mediaType": "application/x", "digest": subject, "size": 5}
    signature, other = image_manifest(b"{}", [], subject=reference), image_manifest(b"{}", [])
    descriptors = []
    for manifest in (signature, other):
        digest = digest_of(json.dumps(manifest).encode())
        assert tenants.owner.put_manifest(repository, digest, manifest).status_code == 201
        size = len(json.dumps(manifest))
        descriptors.append({"mediaType": manifest["mediaType"], "digest": digest, "size": size})

    # when a client pushes an index of both with the fallback tag, as notation does
    tag = subject.replace(":", "-")
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
    assert tenants.owner.put_manifest(repository, tag, index).status_code == 201

    # then the referrer is listed once, and the fallback tag is an ordinary tag
    found = tenants.owner.on(repository, "GET", f"referrers/{subject}").json()["manifests"]
    assert [item["digest"] for item in found] == [descriptors[0]["digest"]]
    assert tenants.owner.on(repository, "GET", f"manifests/{tag}").json() == index
    assert tag in tenants.owner.on(repository, "GET", "tags/list").json()["tags"]


@pytest.mark.oci(121)
def test_the_catalog_lists_the_repositories_of_the_caller_in_pages(tenants: Tenants) -> None:
    # given images in namespaces whose order differs from that of the full names
    prefix = f"cat{os.urandom(3).hex()}"
    names = [f"{prefix}/b", f"{prefix}-x/a", f"{prefix}0/a/deep", f"{prefix}/a"]
    for namespace in sorted({name.split("/")[0] for name in names}):
        tenants.api("POST", "/namespaces", name=namespace)
    for name in names:
        tenants.owner.push_image(name, "1", b"x")
    scope = {"scope": "registry:catalog:*"}

    # when the owner pages through the catalog
    seen: list[str] = []
    path = f"/v2/_catalog?n=2&last={prefix[:-1]}"
    while path:
        response = tenants.owner.call("GET", path, **scope)
        assert response.status_code == 200
        seen += response.json()["repositories"]
        path = response.links["next"]["url"] if "next" in response.links else ""

    # then all are listed in byte order, and other callers get none of them
    assert [name for name in seen if name.startswith(prefix)] == sorted(names)
    assert prefix not in tenants.stranger.call("GET", "/v2/_catalog", **scope).text
    assert tenants.anonymous.call("GET", "/v2/_catalog", **scope).status_code == 401
    rejected = tenants.anonymous.http.get("/v2/_catalog")
    assert rejected.status_code == 401
    assert 'scope="registry:catalog:*"' in rejected.headers["www-authenticate"]
