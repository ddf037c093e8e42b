"""Paths of the data plane (OCI 8, 9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.http.app import ENDPOINTS
from registry_data.http.routes import Kind, Route, route

WORDS = st.sampled_from(["a", "b1", "blobs", "manifests", "tags", "uploads", "list", "referrers", "v2"])
NAMES = st.lists(WORDS, min_size=2, max_size=6).map("/".join)
REFERENCES = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", fullmatch=True) | st.just(
    "sha256:" + "a" * 64
)


@pytest.mark.oci(8)
@given(NAMES, REFERENCES)
def test_the_name_is_everything_before_the_last_keyword(name: str, reference: str) -> None:
    assert route(f"/v2/{name}/manifests/{reference}") == Route(Kind.MANIFEST, name, reference)
    assert route(f"/v2/{name}/referrers/{reference}") == Route(Kind.REFERRERS, name, reference)
    assert route(f"/v2/{name}/blobs/uploads/") == Route(Kind.UPLOADS, name)
    assert route(f"/v2/{name}/blobs/uploads/{reference}") == Route(Kind.UPLOAD, name, reference)
    assert route(f"/v2/{name}/tags/list") == Route(Kind.TAGS, name)
    assert route(f"/v2/{name}/_oci/ext/discover") == Route(Kind.REPOSITORY_EXTENSIONS, name)


@given(NAMES)
def test_a_path_with_the_digest_of_a_blob_is_not_an_upload(name: str) -> None:
    digest = "sha256:" + "0" * 64
    assert route(f"/v2/{name}/blobs/{digest}") == Route(Kind.BLOB, name, digest)


@given(st.text(max_size=60))
def test_routing_raises_no_exception_for_any_path(path: str) -> None:
    route(path)
    route(f"/v2/{path}")


@pytest.mark.oci(179)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/search",
        "/v2/_catalog/",
        "/v2/_oci/manifests/x",
        "/v2//manifests/x",
        "/v2/a/manifests/",
        "/v2x",
    ],
)
def test_other_paths_have_no_route(path: str) -> None:
    assert route(path) is None


def test_every_kind_of_route_has_endpoints() -> None:
    assert set(ENDPOINTS) == set(Kind)
