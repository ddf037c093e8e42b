"""If-Match and If-None-Match: compare and swap of a tag (OCI 110), reads of what is expected."""

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
    answer = tenants.owner.on(repository, "HEAD", f"manifests/{tag}")
    return answer.headers["docker-content-digest"] if answer.status_code == 200 else None


def push(tenants: Tenants, repository: str, reference: str, **headers: str) -> int:
    """Push something new; the headers' `_` is a dash."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    manifest = image_manifest(CONFIG, [], annotations={"about": str(named)})
    answer = tenants.owner.put_manifest(repository, reference, manifest, headers=named)
    if answer.status_code == 412:
        assert answer.headers["content-type"] == "application/json"
        (error,) = answer.json()["errors"]
        assert error["code"] == "DENIED"
        assert reference in error["message"]
    return answer.status_code


@pytest.mark.parametrize("form", ['"{}"', "{}", f'"{OTHER}", "{{}}"', "*"])
def test_a_tag_moves_when_it_stands_for_what_the_client_thinks(
    tenants: Tenants, repository: str, form: str
) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match=form.format(before)) == 201
    assert present(tenants, repository) not in (None, before)


@pytest.mark.parametrize("form", [f'"{OTHER}"', 'W/"{}"', "", "nonsense", f'"{OTHER}", W/"{{}}"'])
def test_a_tag_stays_when_it_stands_for_something_else(tenants: Tenants, repository: str, form: str) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match=form.format(before)) == 412
    assert present(tenants, repository) == before
    # and nothing of the refused manifest is there under its digest
    assert len(tenants.api("GET", f"/images/{tenants.image_id(repository)}/tags")["tags"]) == 1


@pytest.mark.parametrize("form", ["*", f'"{OTHER}"'])
def test_a_tag_that_must_exist_is_not_made(tenants: Tenants, repository: str, form: str) -> None:
    assert push(tenants, repository, "new", If_Match=form) == 412
    assert present(tenants, repository, "new") is None


def test_a_tag_that_must_be_new_is_made_once(tenants: Tenants, repository: str) -> None:
    assert push(tenants, repository, "new", If_None_Match="*") == 201
    made = present(tenants, repository, "new")
    assert push(tenants, repository, "new", If_None_Match="*", X="other") == 412
    assert present(tenants, repository, "new") == made


def test_a_tag_in_a_repository_that_does_not_exist_yet_is_new(tenants: Tenants) -> None:
    repository = tenants.repository()
    assert push(tenants, repository, "t", If_Match="*") == 412
    tenants.owner.push_blob(repository, CONFIG)
    assert push(tenants, repository, "t", If_None_Match="*") == 201


def test_what_is_ruled_out_by_name_is_refused_and_anything_else_goes(
    tenants: Tenants, repository: str
) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_None_Match=f'W/"{before}"') == 412
    assert push(tenants, repository, "t", If_None_Match=f'"{OTHER}"') == 201


def test_both_conditions_must_hold(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    assert push(tenants, repository, "t", If_Match="*", If_None_Match=f'"{before}"') == 412
    assert push(tenants, repository, "t", If_Match=f'"{before}"', If_None_Match=f'"{OTHER}"') == 201


def test_a_header_in_two_lines_is_one_list(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    token = tenants.owner.token(f"repository:{repository}:pull,push,delete")
    lines = [("Authorization", f"Bearer {token}"), ("If-Match", f'"{OTHER}"'), ("If-Match", f'"{before}"')]
    answer = tenants.owner.http.delete(f"/v2/{repository}/manifests/t", headers=lines)
    assert answer.status_code == 202


@pytest.mark.oci(134)
def test_a_tag_is_deleted_only_while_it_stands_for_what_the_client_thinks(
    tenants: Tenants, repository: str
) -> None:
    before = present(tenants, repository)
    for header, status in ((f'"{OTHER}"', 412), (f'"{before}"', 202), (f'"{before}"', 404)):
        answer = tenants.owner.on(repository, "DELETE", "manifests/t", headers={"If-Match": header})
        assert answer.status_code == status
        assert (present(tenants, repository) is None) == (status != 412)
    assert present(tenants, repository, str(before)) == before


def test_a_digest_may_be_asked_to_be_new_as_well(tenants: Tenants, repository: str) -> None:
    before = present(tenants, repository)
    body = tenants.owner.on(repository, "GET", f"manifests/{before}").content
    headers = {"Content-Type": OCI_MANIFEST, "If-None-Match": "*"}
    answer = tenants.owner.on(repository, "PUT", f"manifests/{before}", content=body, headers=headers)
    assert answer.status_code == 412
    assert tenants.owner.put_manifest(repository, str(before), body).status_code == 201
    answer = tenants.owner.on(repository, "DELETE", f"manifests/{before}", headers={"If-Match": f'"{OTHER}"'})
    assert answer.status_code == 412


@pytest.mark.parametrize("form", ['"{}"', "{}", f'"{OTHER}", "{{}}"', "*"])
@pytest.mark.parametrize("kind", ["manifests/t", "manifests/{manifest}", "blobs/{blob}"])
def test_a_read_goes_ahead_when_it_finds_what_the_client_thinks(
    tenants: Tenants, repository: str, kind: str, form: str
) -> None:
    path, digest = content(tenants, repository, kind)
    for method in ("GET", "HEAD"):
        answer = tenants.owner.on(repository, method, path, headers={"If-Match": form.format(digest)})
        assert (answer.status_code, answer.headers["docker-content-digest"]) == (200, digest)


@pytest.mark.oci(46)
@pytest.mark.parametrize("form", [f'"{OTHER}"', 'W/"{}"', "", "nonsense"])
@pytest.mark.parametrize("kind", ["manifests/t", "manifests/{manifest}", "blobs/{blob}"])
def test_a_read_of_something_else_is_refused(tenants: Tenants, repository: str, kind: str, form: str) -> None:
    # given content that has just been read, so that its answer may be kept
    path, digest = content(tenants, repository, kind)
    assert tenants.owner.on(repository, "GET", path).status_code == 200

    # when a client wants other content, or a part of it, or none if it is unchanged
    for more in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": f'"{digest}"'}):
        headers = {"If-Match": form.format(digest), **more}
        refused = tenants.owner.on(repository, "GET", path, headers=headers)

        # then it gets nothing of it
        assert refused.status_code == 412
        (error,) = refused.json()["errors"]
        assert error["code"] == "DENIED"
        assert digest in error["message"]
        assert "If-Match" in error["message"]
        head = tenants.owner.on(repository, "HEAD", path, headers=headers)
        assert (head.status_code, head.content) == (412, b"")


def test_what_is_not_there_is_unknown_whatever_it_should_match(tenants: Tenants, repository: str) -> None:
    for path in ("manifests/none", f"manifests/{OTHER}", f"blobs/{OTHER}"):
        assert tenants.owner.on(repository, "GET", path, headers={"If-Match": "*"}).status_code == 404


def content(tenants: Tenants, repository: str, kind: str) -> tuple[str, str]:
    """The path of something in the repository, and its digest."""
    manifest = str(present(tenants, repository))
    path = kind.format(manifest=manifest, blob=digest_of(CONFIG))
    return path, manifest if path.startswith("manifests") else digest_of(CONFIG)
