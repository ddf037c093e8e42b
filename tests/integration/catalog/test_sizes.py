"""The content that `size` and `untagged_size` of an image include, for any order of the pushes."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection

from registry_control.catalog.models import Image, Manifest, Referrer, Tag
from registry_control.catalog.services import images, manifests, reachability, tags
from registry_control.namespaces.models import Namespace
from tests.factories import TestKey, make_manifest, push_blob, push_image
from tests.integration.growth.watched import Statement, recording

pytestmark = pytest.mark.django_db

OTHER_STATEMENTS = 10  # of a recount, that do not depend on the number of manifests


@pytest.fixture
def image_id(owner: TestKey, namespace: Namespace) -> UUID:
    return images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name="app")


class Repository:
    """Pushes to one image and reads its sizes."""

    def __init__(self, owner: TestKey, image_id: UUID) -> None:
        self.owner, self.image_id = owner, image_id

    def push(
        self, *sizes: int, tags: Sequence[str] = (), children: Sequence[str] = (), subject: str = ""
    ) -> str:
        """Push a manifest with a blob of each of these sizes; return its digest."""
        layers = [push_blob(self.owner, self.image_id, bytes(size)) for size in sizes]
        new = make_manifest(layers, children=children, subject=subject)
        self.put(new, tags=tags)
        return new.digest

    def put(self, new: manifests.NewManifest, *, tags: Sequence[str] = ()) -> None:
        manifests.put(actor=self.owner.actor, image_id=self.image_id, new=new, tag_names=tags)

    @property
    def sizes(self) -> tuple[int, int]:
        return Image.objects.values_list("size", "untagged_size").get(pk=self.image_id)


def digest_of(number: int) -> str:
    return f"sha256:{number:064x}"


def add_referrers(image_id: UUID, subjects: Sequence[str]) -> None:
    """Add the rows of a manifest for each subject; number n gets `digest_of(n)`."""
    added = Manifest.objects.bulk_create(
        Manifest(
            image_id=image_id,
            digest=digest_of(number),
            media_type="application/vnd.oci.image.manifest.v1+json",
            subject_digest=subject,
            payload=b"",
            size=0,
            is_reachable=True,
        )
        for number, subject in enumerate(subjects)
    )
    Referrer.objects.bulk_create(
        Referrer(manifest=each, image_id=image_id, subject_digest=each.subject_digest, size=0, descriptor=b"")
        for each in added
    )


def add_chain(repository: Repository, length: int) -> None:
    """Add a tagged manifest and referrers, each of which has the one before it as its subject."""
    subject = repository.push(10, tags=["latest"])
    add_referrers(repository.image_id, [subject, *map(digest_of, range(length - 1))])


@pytest.fixture
def repository(owner: TestKey, image_id: UUID) -> Repository:
    return Repository(owner, image_id)


def test_a_tag_that_is_moved_leaves_the_old_content_untagged(repository: Repository) -> None:
    # given a tag that is pushed three times, with one unchanged layer
    for size in (10, 20, 30):
        repository.push(5, size, tags=["latest"])

    # then only the newest push counts, and the shared layer once
    assert repository.sizes == (35, 30)


def test_the_children_of_an_index_become_tagged_content_when_it_gets_a_tag(repository: Repository) -> None:
    # given two platforms, pushed by digest before their index, as all clients do
    children = [repository.push(size) for size in (10, 20)]
    assert repository.sizes == (0, 30)

    # when the index is pushed with a tag, and the tag is then moved to another manifest
    repository.push(tags=["latest"], children=children)
    assert repository.sizes == (30, 0)
    repository.push(1, tags=["latest"])

    # then the children were tagged content as long as the index had the tag
    assert repository.sizes == (1, 30)


def test_a_signature_is_tagged_content_with_its_subject_in_either_order(repository: Repository) -> None:
    # given a signature of a manifest that is pushed later, and an SBOM of the signature
    subject = make_manifest([push_blob(repository.owner, repository.image_id, bytes(10))])
    signature = repository.push(3, subject=subject.digest)
    repository.push(2, subject=signature)
    assert repository.sizes == (0, 5)

    # when the subject is pushed, and then one more signature
    repository.put(subject, tags=["v1"])
    assert repository.sizes == (15, 0)
    repository.push(4, subject=subject.digest)
    assert repository.sizes == (19, 0)

    # then all of them become untagged together
    tags.untag(actor=repository.owner.actor, image_id=repository.image_id, name="v1")
    assert repository.sizes == (0, 19)


def test_an_index_whose_subject_is_its_own_child_is_untagged_without_a_tag(repository: Repository) -> None:
    child = repository.push(10)
    repository.push(1, tags=["latest"], children=[child], subject=child)
    assert repository.sizes == (11, 0)
    repository.push(2, tags=["latest"])
    assert repository.sizes == (2, 11)


def test_a_tag_on_an_existing_manifest_makes_it_tagged_content(repository: Repository) -> None:
    new = make_manifest([push_blob(repository.owner, repository.image_id, bytes(10))])
    repository.put(new)
    assert repository.sizes == (0, 10)
    repository.put(new, tags=["a", "b"])
    repository.put(new, tags=["a"])
    assert repository.sizes == (10, 0)


def test_a_child_of_a_sparse_index_is_tagged_content_once_it_is_pushed(
    repository: Repository, namespace: Namespace
) -> None:
    Namespace.objects.filter(pk=namespace.pk).update(accepts_sparse_indexes=True)
    child = make_manifest([push_blob(repository.owner, repository.image_id, bytes(10))])
    index = replace(make_manifest(children=[child.digest]), platforms={child.digest: "linux/arm64"})
    repository.put(index, tags=["latest"])
    repository.put(child)
    assert repository.sizes == (10, 0)


def test_a_deleted_manifest_is_not_counted_and_its_children_become_untagged(repository: Repository) -> None:
    child = repository.push(10)
    index = repository.push(5, tags=["latest"], children=[child])
    manifests.delete(actor=repository.owner.actor, image_id=repository.image_id, digest=index)
    assert repository.sizes == (0, 10)
    manifests.delete(actor=repository.owner.actor, image_id=repository.image_id, digest=child)
    assert repository.sizes == (0, 0)


def test_a_tag_that_is_being_deleted_does_not_count(owner: TestKey, namespace: Namespace) -> None:
    pushed = push_image(owner, namespace, tags=("a",))
    tags.delete(principal=owner.principal, tag_id=pushed.tag("a").pk)
    assert (pushed.image.size, pushed.image.untagged_size) == (0, pushed.size)


def test_the_worker_recomputes_sizes_where_a_tag_reaches_too_many_manifests(repository: Repository) -> None:
    # given more signatures of one manifest than a request evaluates
    subject = repository.push(10, tags=["latest"])
    repository.push(3, subject=subject)
    add_referrers(repository.image_id, [subject] * reachability.MAX_AFFECTED)

    # when the tag is moved
    repository.push(1, tags=["latest"])

    # then the request leaves the sizes to the worker, which finds the image by its row
    assert Image.objects.get(pk=repository.image_id).size_is_stale
    assert reachability.recount_stale(limit=10) == 1
    assert repository.sizes == (1, 13)
    assert not Image.objects.get(pk=repository.image_id).size_is_stale


def test_sizes_that_the_worker_has_yet_to_recount_are_unchanged(repository: Repository) -> None:
    # given an image of an older release, whose `size` counted its untagged manifests too (migration 0010)
    old = repository.push(10)
    repository.push(20, tags=["a"])
    repository.push(30, tags=["b"])
    row = Image.objects.filter(pk=repository.image_id)
    row.update(size=60, untagged_size=0, size_is_stale=True)

    # when manifests and tags are pushed and deleted before the worker has recounted it
    owner = repository.owner
    manifests.delete(actor=owner.actor, image_id=repository.image_id, digest=old)
    assert repository.sizes == (60, 0)
    repository.push(1, tags=["a"])
    assert repository.sizes == (60, 0)
    tags.untag(actor=owner.actor, image_id=repository.image_id, name="b")
    assert repository.sizes == (60, 0)
    tags.delete(principal=owner.principal, tag_id=Tag.objects.get(name="a").pk)
    assert repository.sizes == (60, 0)

    # then the recount is right
    reachability.recount_stale(limit=10)
    assert repository.sizes == (0, 51)


def test_an_index_without_a_tag_makes_its_children_tagged_content_when_its_subject_has_one(
    repository: Repository,
) -> None:
    subject, child = repository.push(1, tags=["latest"]), repository.push(10)
    repository.push(children=[child], subject=subject)
    assert repository.sizes == (11, 0)


def test_a_recount_runs_at_most_one_statement_for_each_manifest_of_a_chain(repository: Repository) -> None:
    add_chain(repository, 1500)
    Manifest.objects.filter(image=repository.image_id).update(is_reachable=False)
    statements: list[Statement] = []
    with recording(statements):
        reachability.recount(repository.image_id)
    assert Manifest.objects.filter(image=repository.image_id, is_reachable=True).count() == 1501
    assert len(statements) <= 1501 + OTHER_STATEMENTS


def test_a_recount_marks_the_referrers_of_one_subject_in_batches(repository: Repository) -> None:
    subject = repository.push(10, tags=["latest"])
    add_referrers(repository.image_id, [subject] * 1500)
    statements: list[Statement] = []
    with recording(statements):
        reachability.recount(repository.image_id)
    assert Manifest.objects.filter(image=repository.image_id, is_reachable=True).count() == 1501
    assert len(statements) <= 4 + OTHER_STATEMENTS


@pytest.mark.only_on("sqlite")
def test_the_work_of_a_recount_grows_in_proportion_to_the_length_of_a_chain(
    owner: TestKey, namespace: Namespace
) -> None:
    steps = []
    for name, length in (("short", 300), ("long", 1500)):
        image_id = images.get_or_create(actor=owner.actor, namespace_id=namespace.pk, name=name)
        add_chain(Repository(owner, image_id), length)
        with counting_steps() as count:
            reachability.recount(image_id)
        steps.append(next(count))
    assert steps[1] < 7 * steps[0]  # 25 times if each round read all manifests reached so far


@contextmanager
def counting_steps() -> Iterator[Iterator[int]]:
    """Count the instructions of SQLite's virtual machine, in hundreds; the next value is the count so far."""
    count = itertools.count()
    connection.connection.set_progress_handler(lambda: next(count) < 0, 100)
    try:
        yield count
    finally:
        connection.connection.set_progress_handler(None, 0)


def test_an_image_that_cannot_be_recounted_does_not_stop_the_others(
    owner: TestKey, namespace: Namespace, caplog: pytest.LogCaptureFixture
) -> None:
    # given three images to recount
    pushed = [push_image(owner, namespace, name).image.pk for name in ("a", "b", "c")]
    Image.objects.update(size_is_stale=True)

    # when every statement about the first one by id fails, as it does when another transaction holds its row
    first = min(pushed)
    with failing_for(first):
        assert reachability.recount_stale(limit=10) == 2

    # then it is left for later, and the others are recounted
    assert [*Image.objects.filter(size_is_stale=True).values_list("pk", flat=True)] == [first]
    assert str(first) in caplog.text
    assert reachability.recount_stale(limit=10) == 1


def test_images_that_cannot_be_recounted_do_not_fill_every_batch(
    owner: TestKey, namespace: Namespace
) -> None:
    # given two stale images with distant ids, of which the one with the lower id cannot be recounted
    pushed = sorted(push_image(owner, namespace, name).image.pk for name in "abcdef")
    first, last = pushed[0], pushed[-1]
    Image.objects.filter(pk__in=[first, last]).update(size_is_stale=True)

    # then batches of one image get to the other one
    with failing_for(first):
        assert any(reachability.recount_stale(limit=1) for _ in range(1000))
    assert not Image.objects.get(pk=last).size_is_stale


def failing_for(image_id: UUID) -> AbstractContextManager[None]:
    """Make every statement fail that has the id of an image as a parameter."""

    def fail(execute: Callable[..., Any], sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if {image_id, image_id.hex} & {*(parameters or ())}:
            raise OperationalError("canceling statement due to lock timeout")
        return execute(sql, parameters, many, context)

    return connection.execute_wrapper(fail)
