"""If-Match and If-None-Match: optimistic locking of tags (OCI 110), and conditional reads."""

import pytest

from tests.oci_client import OCI_MANIFEST, digest_of, image_manifest
from tests.tenants import Tenants

CONFIG = b"{}"
OTHER = f"sha256:{'0' * 64}"

pytestmark = pytest.mark.oci(110)


@pytest.fixture
def repository(tenants: Tenants) -> str:
    """A repository that has the config blob, and the tag `t`."""
    name = tenants.repository()
    tenants.owner.push_blob(name, CONFIG)
    assert tenants.owner.put_manifest(name, "t", image_manifest(CONFIG, [])).status_code == 201
    return name


def present(tenants: Tenants, repository: str, tag: str = "t") -> str | None:
    response = tenants.owner.on(repository, "HEAD", f"manifests/{tag}")
    return response.headers["docker-content-digest"] if response.status_code == 200 else None


def push(tenants: Tenants, repository: str, reference: str, **headers: str) -> int:
    """Push a new manifest and return the status; `_` in the names of headers is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    manifest = image_manifest(CONFIG, [], annotations={"about": str(named)})
    response = tenants.owner.put_manifest(repository, reference, manifest, headers=named)
    if response.status_code == 412:
        assert response.headers["content-type"] == "application/json"
        (error,) = response.json()["errors"]
        assert error["code"] == "DENIED"
        assert reference in error["message"]
    return response.status_code


@pytest.mark.parametrize("form", ['"{}"', "{}", f'"{OTHER}", "{{}}"', "*"])
def test_a_tag_moves_if_its_manifest_matches_if_match(tenants: Tenants, repository: str, form: str) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match=form.format(before)) == 201
    assert present(tenants, repository) not in (None, before)


@pytest.mark.parametrize("form", [f'"{OTHER}"', 'W/"{}"', "", "nonsense", f'"{OTHER}", W/"{{}}"'])
def test_a_tag_does_not_move_if_its_manifest_does_not_match_if_match(
    tenants: Tenants, repository: str, form: str
) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match=form.format(before)) == 412
    assert present(tenants, repository) == before
    # and the rejected manifest is not stored
    assert len(tenants.api("GET", f"/images/{tenants.image_id(repository)}/tags")["tags"]) == 1


@pytest.mark.parametrize("form", ["*", f'"{OTHER}"'])
def test_if_match_does_not_create_a_tag(tenants: Tenants, repository: str, form: str) -> None:
    assert push(tenants, repository, "new", If_Match=form) == 412
    assert present(tenants, repository, "new") is None


def test_if_none_match_with_an_asterisk_creates_a_tag_only_once(tenants: Tenants, repository: str) -> None:
    assert push(tenants, repository, "new", If_None_Match="*") == 201
    made = present(tenants, repository, "new")
    assert push(tenants, repository, "new", If_None_Match="*", X="other") == 412
    assert present(tenants, repository, "new") == made


def test_a_tag_of_a_missing_repository_matches_only_if_none_match(tenants: Tenants) -> None:
    repository = tenants.repository()
    assert push(tenants, repository, "t", If_Match="*") == 412
    tenants.owner.push_blob(repository, CONFIG)
    assert push(tenants, repository, "t", If_None_Match="*") == 201


def test_if_none_match_with_the_present_digest_rejects_a_push(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_None_Match=f'W/"{before}"') == 412
    assert push(tenants, repository, "t", If_None_Match=f'"{OTHER}"') == 201


def test_both_conditions_must_be_true(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match="*", If_None_Match=f'"{before}"') == 412
    assert push(tenants, repository, "t", If_Match=f'"{before}"', If_None_Match=f'"{OTHER}"') == 201


def test_a_repeated_header_is_one_list(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    token = tenants.owner.token(f"repository:{repository}:pull,push,delete")
    lines = [("Authorization", f"Bearer {token}"), ("If-Match", f'"{OTHER}"'), ("If-Match", f'"{before}"')]
    response = tenants.owner.http.delete(f"/v2/{repository}/manifests/t", headers=lines)
    assert response.status_code == 202


@pytest.mark.oci(134)
def test_a_tag_is_deleted_only_if_its_manifest_matches_if_match(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    for header, status in ((f'"{OTHER}"', 412), (f'"{before}"', 202), (f'"{before}"', 404)):
        response = tenants.owner.on(repository, "DELETE", "manifests/t", headers={"If-Match": header})
        assert response.status_code == status
        assert (present(tenants, repository) is None) == (status != 412)
    assert present(tenants, repository, str(before)) == before


def test_conditions_also_apply_to_a_push_by_digest(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    body = tenants.owner.on(repository, "GET", f"manifests/{before}").content
    headers = {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"}
    response = tenants.owner.on(repository, "PUT", f"manifests/{before}", content=body, headers=headers)
    assert response.status_code == 412
    assert tenants.owner.put_manifest(repository, str(before), body).status_code == 201
    response = tenants.owner.on(
        repository, "DELETE", f"manifests/{before}", headers={"If-Match": f'"{OTHER}"'}
    )
    assert response.status_code == 412


@pytest.mark.parametrize("form", ['"{}"', "{}", f'"{OTHER}", "{{}}"', "*"])
@pytest.mark.parametrize("kind", ["manifests/t", "manifests/{manifest}", "blobs/{blob}"])
def test_a_read_succeeds_if_the_content_matches_if_match(
    tenants: Tenants, repository: str, kind: str, form: str
) -> None:
    path, digest = content(tenants, repository, kind)
    for method in ("GET", "HEAD"):
        response = tenants.owner.on(repository, method, path, headers={"If-Match": form.format(digest)})
        assert (response.status_code, response.headers["docker-content-digest"]) == (200, digest)


@pytest.mark.oci(46)
@pytest.mark.parametrize("form", [f'"{OTHER}"', 'W/"{}"', "", "nonsense"])
@pytest.mark.parametrize("kind", ["manifests/t", "manifests/{manifest}", "blobs/{blob}"])
def test_a_read_is_412_if_the_content_does_not_match_if_match(
    tenants: Tenants, repository: str, kind: str, form: str
) -> None:
    # given content that has just been read, so that its response may be cached
    path, digest = content(tenants, repository, kind)
    assert tenants.owner.on(repository, "GET", path).status_code == 200

    # when a client expects other content, also in a range request or with If-None-Match
    for more in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": f'"{digest}"'}):
        headers = {"If-Match": form.format(digest), **more}
        rejected = tenants.owner.on(repository, "GET", path, headers=headers)

        # then the response is an error without the content
        assert rejected.status_code == 412
        (error,) = rejected.json()["errors"]
        assert error["code"] == "DENIED"
        assert digest in error["message"]
        assert "If-Match" in error["message"]
        head = tenants.owner.on(repository, "HEAD", path, headers=headers)
        assert (head.status_code, head.content) == (412, b"")


def test_a_conditional_read_of_missing_content_is_404(tenants: Tenants, repository: str) -> None:
    for path in ("manifests/none", f"manifests/{OTHER}", f"blobs/{OTHER}"):
        assert tenants.owner.on(repository, "GET", path, headers={"If-Match": "*"}).status_code == 404


def content(tenants: Tenants, repository: str, kind: str) -> tuple[str, str]:
    """The path of a manifest or blob in the repository, and its digest."""
    manifest = str(present(tenants, repository))
    path = kind.format(manifest=manifest, blob=digest_of(CONFIG))
    return path, manifest if path.startswith("manifests") else digest_of(CONFIG)
