"""Works that only read."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.client import Connection, Operation, Steps
from bench.content import Content, config, fixed, manifest
from bench.measure import Get, Load, Loop, Wrk
from bench.registry import NAMESPACE, Registry
from bench.work import BULK, KIB, LARGE, Work

_RANGE: Final = 64 * KIB

_IMAGE: Final = f"{NAMESPACE}/image"
_MANY: Final = [f"{NAMESPACE}/many-{number}" for number in range(100)]
_TAGS: Final = 20  # in each of the many repositories


def _seed_image(registry: Registry) -> tuple[Content, Content]:
    """One small image, and the two things of it that are asked for."""
    layer, configuration = fixed(KIB), config()
    image = manifest(configuration, layer)
    if "image" not in registry.seeded:
        registry.put_blob(_IMAGE, layer)
        registry.put_blob(_IMAGE, configuration)
        registry.put_manifest(_IMAGE, "latest", image)
        registry.seeded.add("image")
    return image, layer


def _seed_many(registry: Registry) -> dict[str, list[Content]]:
    """2000 images in 100 repositories."""
    layer, configuration = fixed(KIB), config()
    images = {
        repository: [manifest(configuration, layer, f"{repository} {tag}") for tag in range(_TAGS)]
        for repository in _MANY
    }
    if "many" not in registry.seeded:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda named: _seed_repository(registry, *named), images.items()))
        registry.seeded.add("many")
    return images


def _seed_repository(registry: Registry, repository: str, images: list[Content]) -> None:
    registry.put_blob(repository, fixed(KIB))
    registry.put_blob(repository, config())
    for number, image in enumerate(images):
        registry.put_manifest(repository, f"tag-{number}", image)


def _seed_large(registry: Registry) -> Content:
    large = fixed(LARGE)
    if "large" not in registry.seeded:
        registry.put_blob(_IMAGE, large)
        registry.written += large.size
        registry.seeded.add("large")
    return large


def _the_manifest(registry: Registry, *, by_tag: bool) -> list[Get]:
    image, _ = _seed_image(registry)
    reference = "latest" if by_tag else image.digest
    return [Get(f"/v2/{_IMAGE}/manifests/{reference}", registry.authorization(_IMAGE), image.size)]


def _many_manifests(registry: Registry, *, by_tag: bool) -> list[Get]:
    registry.take_tokens(_MANY)
    wanted = [
        Get(
            f"/v2/{repository}/manifests/{f'tag-{tag}' if by_tag else image.digest}",
            registry.authorization(repository),
            image.size,
        )
        for repository, images in _seed_many(registry).items()
        for tag, image in enumerate(images)
    ]
    random.Random(0).shuffle(wanted)
    return wanted


def _the_blob(registry: Registry) -> list[Get]:
    _, layer = _seed_image(registry)
    return [Get(f"/v2/{_IMAGE}/blobs/{layer.digest}", registry.authorization(_IMAGE), layer.size)]


def _the_large_blob(registry: Registry) -> Get:
    large = _seed_large(registry)
    return Get(f"/v2/{_IMAGE}/blobs/{large.digest}", registry.authorization(_IMAGE), large.size)


def _ranges(registry: Registry) -> list[Get]:
    whole = _the_large_blob(registry)
    chance = random.Random(0)
    starts = [chance.randrange(LARGE - _RANGE) for _ in range(500)]
    return [
        Get(whole.path, whole.authorization, _RANGE, f"bytes={start}-{start + _RANGE - 1}")
        for start in starts
    ]


def _forever(method: str, gets: list[Get]) -> Loop:
    """The same requests in order, over and over, by our own client."""
    return Loop(itertools.cycle([_operation(method, get) for get in gets]))


def _operation(method: str, get: Get) -> Operation:
    headers = get.headers()

    def ask(connection: Connection) -> Steps:
        yield from connection.call(method, get.path, headers, expect=200)

    return ask


def _large_get(registry: Registry, _: int) -> Load:
    return _forever("GET", [_the_large_blob(registry)])


def _catalog(registry: Registry, _: int) -> Load:
    _seed_many(registry)
    return Wrk([Get("/v2/_catalog?n=100", registry.catalog_authorization(), None)])


READS: Final = (
    Work("manifest GET by tag", lambda r, _: Wrk(_the_manifest(r, by_tag=True))),
    Work("manifest GET by digest", lambda r, _: Wrk(_the_manifest(r, by_tag=False))),
    Work("manifest HEAD by tag", lambda r, _: _forever("HEAD", _the_manifest(r, by_tag=True))),
    Work("manifest HEAD by digest", lambda r, _: _forever("HEAD", _the_manifest(r, by_tag=False))),
    Work("manifest GET by tag, another each time", lambda r, _: Wrk(_many_manifests(r, by_tag=True))),
    Work("manifest GET by digest, another each time", lambda r, _: Wrk(_many_manifests(r, by_tag=False))),
    Work("blob HEAD", lambda r, _: _forever("HEAD", _the_blob(r))),
    Work("blob GET 1 KiB", lambda r, _: Wrk(_the_blob(r))),
    Work("blob GET 200 MB", _large_get, BULK, size=LARGE),
    Work("blob GET 64 KiB by Range", lambda r, _: Wrk(_ranges(r)), (1, 16, 64), size=_RANGE),
    Work("catalog GET", _catalog, (16,), needs_registry=True),
)
