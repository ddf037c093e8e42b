"""A mount makes the same queries whichever tenant has the blob."""

from operator import attrgetter

import pytest

from registry_control.catalog.services import blobs, images, uploads
from registry_control.namespaces.models import Namespace
from registry_data.oci.digest import Digest
from registry_data.oci.reference import Repository
from registry_data.registry import mounts
from registry_data.registry.authorization import Credentials
from registry_data.storage.keys import blob_key
from tests.factories import TestKey, make_key, make_namespace

pytestmark = pytest.mark.django_db(transaction=True)

DIGEST = Digest.of(b"what a tenant keeps to itself")


@pytest.fixture
def private_blob(owner: TestKey, namespace: Namespace) -> None:
    """A blob of another tenant's image."""
    image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")
    session = uploads.start(actor=owner.actor, image_id=image_id, algorithm="sha256")
    key = blob_key(DIGEST.algorithm, DIGEST.encoded, session.hex)
    blobs.record_upload(session_id=session, image_id=image_id, new=blobs.NewBlob(str(DIGEST), 29, key))


def _record_calls(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    """Record every call of this function."""
    real = attrgetter(name)(mounts)

    def recorded(*arguments: object, **options: object) -> object:
        calls.append(name)
        return real(*arguments, **options)

    monkeypatch.setattr(f"{mounts.__name__}.{name}", recorded)


@pytest.mark.oci(83)
@pytest.mark.parametrize("source", [None, "there/app"])
@pytest.mark.usefixtures("private_blob")
def test_invariant_9_a_mount_makes_the_same_calls_for_another_tenants_blob_and_an_unknown_one(
    monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    # given a stranger, and a record of every call that a mount makes
    stranger = make_key()
    target = Repository(make_namespace(stranger).name, "app")
    calls: list[str] = []
    for name in ("identify", "resolve.blob", "images_with", "is_allowed"):
        _record_calls(monkeypatch, name, calls)

    # when it tries to mount a blob of another tenant, and an unknown one
    paths = []
    for digest in (DIGEST, Digest.of(b"nowhere")):
        calls.clear()
        from_ = Repository(*source.split("/")) if source else None
        assert not mounts.mount(Credentials(secret=stranger.secret), target, digest, source=from_)
        paths.append(list(calls))

    # then calls and result are the same
    assert paths[0] == paths[1]
    assert ("images_with" in paths[0]) == (source is None)
