"""Stored counters and sizes equal the values computed from the rows, after any sequence of changes."""

import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from django.db.models import Count, F

from registry_control.catalog.errors import CatalogError
from registry_control.catalog.models import Image, Manifest, Tag
from registry_control.catalog.selectors import listing
from registry_control.catalog.services import deletion, images, manifests, reachability, tags
from registry_control.common.errors import ServiceError
from registry_control.common.models import Status
from registry_control.namespaces import services as namespaces
from registry_control.namespaces.models import Namespace
from registry_data.storage.base import BlobStore
from registry_data.storage.filesystem import FilesystemStore
from tests.factories import TestKey, make_key, make_manifest, make_namespace, push_blob, push_image
from tests.integration.catalog.races import at_once, needs_postgresql

STEPS = 60


@pytest.fixture
def store(tmp_path: Any) -> BlobStore:
    found = FilesystemStore(tmp_path)
    found.check()
    return found


class Registry:
    """Performs random changes in two namespaces, as clients and the worker would."""

    def __init__(self, chance: random.Random, store: BlobStore) -> None:
        self.chance, self.store = chance, store
        self.owner: TestKey = make_key()
        self.namespaces = [make_namespace(self.owner) for _ in range(2)]
        self.moves = [
            *[self.push] * 6,
            *[self.untag, self.delete_tag, self.delete_manifest] * 2,
            *[self.work] * 2,
            *[self.push_index, self.push_referrer] * 3,
            self.ensure,
            self.delete_image,
            self.delete_namespace,
        ]

    def move(self) -> None:
        with suppress(CatalogError, ServiceError):
            self.chance.choice(self.moves)()

    def push(self) -> None:
        namespace, name = self.chance.choice(self.namespaces), self.chance.choice(("a", "b"))
        names = self.chance.sample(["v1", "v2", "v3", "latest"], self.chance.randrange(4))
        content = b"%d" % self.chance.randrange(5)
        push_image(self.owner, namespace, name, tags=names, layers=[content])

    def push_index(self) -> None:
        """Push an index of some manifests of one image, tagged or not; one of them may be its subject too."""
        if found := self._some(Manifest.objects.all()):
            siblings = list(Manifest.objects.filter(image=found.image_id).values_list("digest", flat=True))
            children = self.chance.sample(siblings, min(len(siblings), 2))
            subject = children[0] if self.chance.random() < 0.2 else ""
            self._put(found.image_id, make_manifest(children=children, subject=subject))

    def push_referrer(self) -> None:
        """Push a signature whose subject exists, or does not exist yet."""
        if found := self._some(Manifest.objects.all()):
            layer = push_blob(self.owner, found.image_id, b"signature %d" % self.chance.randrange(3))
            self._put(found.image_id, make_manifest([layer], subject=found.digest))

    def _put(self, image_id: UUID, new: manifests.NewManifest) -> None:
        names = self.chance.sample(["v1", "latest"], self.chance.randrange(2))
        manifests.put(actor=self.owner.actor, image_id=image_id, new=new, tag_names=names)

    def ensure(self) -> None:
        namespace = self.chance.choice(self.namespaces)
        name = f"never-pushed-{self.chance.randrange(3)}"
        images.get_or_create(actor=self.owner.actor, namespace_id=namespace.pk, name=name)

    def _some(self, rows: Any) -> Any:
        found = list(rows.order_by("pk"))
        return self.chance.choice(found) if found else None

    def untag(self) -> None:
        if tag := self._some(Tag.objects.exclude(status=Status.DELETING)):
            tags.untag(actor=self.owner.actor, image_id=tag.image_id, name=tag.name)

    def delete_tag(self) -> None:
        if tag := self._some(Tag.objects.all()):
            tags.delete(principal=self.owner.principal, tag_id=tag.pk)

    def delete_manifest(self) -> None:
        if found := self._some(Manifest.objects.all()):
            manifests.delete(actor=self.owner.actor, image_id=found.image_id, digest=found.digest)

    def delete_image(self) -> None:
        if image := self._some(Image.objects.filter(pushed_at__isnull=False)):
            images.delete(principal=self.owner.principal, image_id=image.pk)

    def delete_namespace(self) -> None:
        gone = self.namespaces.pop(0)
        namespaces.delete(principal=self.owner.principal, namespace_id=gone.pk)
        self.namespaces.append(make_namespace(self.owner))

    def work(self) -> None:
        deletion.run_batch(store=self.store, limit=self.chance.choice((1, 3, 50)))


def check_numbers(owner: TestKey) -> None:
    wrong_images = Image.objects.annotate(there=Count("tags")).exclude(tag_rows=F("there"))
    assert list(wrong_images.values_list("pk", "tag_rows", "there")) == []
    wrong_namespaces = Namespace.objects.annotate(there=Count("images")).exclude(image_rows=F("there"))
    assert list(wrong_namespaces.values_list("pk", "image_rows", "there")) == []
    foreign = Image.objects.exclude(organization_id=F("namespace__project__organization"))
    assert not foreign.exists()
    for image in Image.objects.exclude(status=Status.DELETING):
        assert (image.size, image.untagged_size) == sizes_of(image), image
        assert not image.size_is_stale
    everything = listing.ImageFilter()
    shown = listing.images_visible_to(owner.principal, everything)
    assert listing.count_images(owner.principal, everything) == shown.count()
    for namespace in Namespace.objects.all():
        some = listing.ImageFilter(namespace_id=namespace.pk)
        shown = listing.images_visible_to(owner.principal, some)
        assert listing.count_images(owner.principal, some) == shown.count()


def sizes_of(image: Image) -> tuple[int, int]:
    """Size and untagged size, computed from all rows of the image."""
    links = {
        manifest.pk: set(manifest.blob_links.values_list("blob", "blob__size"))
        for manifest in image.manifests.all()
    }
    digests = dict(image.manifests.values_list("digest", "pk"))
    reached: set[int] = set()
    waiting = set(image.tags.exclude(status=Status.DELETING).values_list("manifest", flat=True))
    while waiting:
        manifest = Manifest.objects.get(pk=waiting.pop())
        reached.add(manifest.pk)
        waiting |= set(manifest.children.values_list("child", flat=True)) - reached
        waiting |= (
            set(image.manifests.filter(subject_digest=manifest.digest).values_list("pk", flat=True)) - reached
        )
    assert reached <= set(digests.values())
    assert reached == set(image.manifests.filter(is_reachable=True).values_list("pk", flat=True))
    assert set(image.blob_links.filter(is_reachable=True).values_list("manifest", flat=True)) <= reached
    tagged = set[tuple[int, int]]().union(*(links[pk] for pk in reached))
    others = set[tuple[int, int]]().union(*links.values()) - tagged
    return sum(size for _, size in tagged), sum(size for _, size in others)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(2))
def test_after_any_changes_the_counters_equal_the_rows(seed: int, store: BlobStore) -> None:
    registry = Registry(random.Random(seed), store)
    for _ in range(STEPS):
        registry.move()
        check_numbers(registry.owner)

    # and a recount finds the same
    for image in Image.objects.all():
        reachability.recount(image.pk)
    check_numbers(registry.owner)


@pytest.mark.django_db
def test_a_caller_who_may_read_only_some_namespaces_gets_the_count_of_these() -> None:
    # given two applications of one organization, each of which owns a namespace and has no other rights
    first = make_key()
    second = make_key(organization=first.organization, rights=False)
    mine, others = make_namespace(first), make_namespace(first)
    Namespace.objects.filter(pk=mine.pk).update(owner_application=second.principal.id)
    for namespace in (mine, others):
        push_image(first, namespace, "app")

    # then a principal with rights on all namespaces counts both, each application its own
    everything = listing.ImageFilter()
    assert listing.count_images(first.principal, everything) == 2
    assert listing.count_images(second.principal, everything) == 1
    assert [image.namespace_id for image in listing.images_visible_to(second.principal, everything)] == [
        mine.pk
    ]


@needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_concurrent_pushes_untags_and_worker_runs_leave_correct_counters(store: BlobStore) -> None:
    # given an image whose tags are deleted while others are pushed
    owner = make_key()
    namespace = make_namespace(owner)
    old = [f"old-{number}" for number in range(8)]
    image_id = push_image(owner, namespace, tags=old).image_id
    layer = push_blob(owner, image_id, b"layer")
    for tag in Tag.objects.filter(name__in=old[:4]):
        tags.delete(principal=owner.principal, tag_id=tag.pk)

    # when everything runs concurrently
    results = at_once(
        *(lambda n=n: _push(owner, image_id, layer, n) for n in range(6)),
        *(lambda name=name: tags.untag(actor=owner.actor, image_id=image_id, name=name) for name in old[4:6]),
        lambda: deletion.run_batch(store=store, limit=2),
        lambda: deletion.run_batch(store=store, limit=50),
        lambda: _ensure(owner, namespace.pk, range(6)),
        lambda: _ensure(owner, namespace.pk, reversed(range(6))),
    )

    # then no call failed, and the counters are correct
    assert [result for result in results if isinstance(result, BaseException)] == []
    check_numbers(owner)


def _push(owner: TestKey, image_id: UUID, layer: str, number: int) -> None:
    new = make_manifest([layer])
    manifests.put(actor=owner.actor, image_id=image_id, new=new, tag_names=[f"new-{number}", "latest"])


def _ensure(owner: TestKey, namespace_id: UUID, numbers: Iterable[int]) -> None:
    for number in numbers:
        images.get_or_create(actor=owner.actor, namespace_id=namespace_id, name=f"other-{number}")
