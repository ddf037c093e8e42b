"""Works that push and pull whole images, like zot's `zb` (cmd/zb), and the same with unique content.

An operation is one image. Every push goes to a new repository, whose token is requested before the
measurement starts. `zb` pushes the same bytes every time; unique content shows the cost of storing it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Final, Protocol
from uuid import uuid4

from bench.client import Connection, Operation, Steps
from bench.content import MANIFEST, Content, config, manifest, sparse, unique
from bench.measure import Loop
from bench.registry import NAMESPACE, Registry
from bench.uploads import BYTES, authorized, closing, monolithic
from bench.work import MIB, RATES, Work

_POOL: Final = 1000  # repositories for one run, which ends early if they are used up
_SMALL_POOL: Final = 300  # the same for large images, of which a run pushes fewer
_PULLED: Final = 8  # different images to pull; `zb` has one for each connection
_TYPE: Final = f"Content-Type: {MANIFEST}\r\n"
_ACCEPT: Final = f"Accept: {MANIFEST}\r\n"

Image = tuple[Content, Content]  # configuration and layer


class Push(Protocol):
    """A way to push an image."""

    def __call__(
        self, connection: Connection, /, *, repository: str, headers: str, image: Image
    ) -> Steps: ...


def _same(size: int) -> Image:
    return config(), sparse(size)


def _unique(size: int) -> Image:
    return config(uuid4().hex), unique(size)


def _whole(connection: Connection, *, repository: str, headers: str, image: Image) -> Steps:
    """Push layer and configuration with one PUT each."""
    configuration, layer = image
    yield from monolithic(connection, repository=repository, headers=headers, blob=layer)
    yield from monolithic(connection, repository=repository, headers=headers, blob=configuration)
    yield from _put_manifest(connection, repository, headers, image)


def _in_chunks(connection: Connection, *, repository: str, headers: str, image: Image) -> Steps:
    """Push the layer with one PATCH, the configuration with an empty PATCH and a full one."""
    configuration, layer = image
    uploads = f"/v2/{repository}/blobs/uploads/"
    for blob, bodies in ((layer, [layer.parts]), (configuration, [(), configuration.parts])):
        started = yield from connection.call("POST", uploads, headers, expect=202)
        for body in bodies:
            patched = yield from connection.call(
                "PATCH", started.location, headers + BYTES, *body, expect=202
            )
        yield from connection.call("PUT", closing(patched.location, blob.digest), headers, expect=201)
    yield from _put_manifest(connection, repository, headers, image)


def _put_manifest(connection: Connection, repository: str, headers: str, image: Image) -> Steps:
    target = f"/v2/{repository}/manifests/latest"
    yield from connection.call("PUT", target, headers + _TYPE, *manifest(*image).parts, expect=201)


def _pull(connection: Connection, *, repository: str, headers: str, image: Image) -> Steps:
    """HEAD and GET manifest, configuration and layer."""
    targets = ["manifests/latest", *(f"blobs/{blob.digest}" for blob in image)]
    for target in targets:
        for method in ("HEAD", "GET"):
            yield from connection.call(method, f"/v2/{repository}/{target}", headers + _ACCEPT, expect=200)


Source = Callable[[Registry], Iterator[Operation]]


def _pushes(size: int, push: Push = _whole, make: Callable[[int], Image] = _unique) -> Source:
    """Push images of `size` bytes, each to a new repository."""

    def operations(registry: Registry) -> Iterator[Operation]:
        make(size)  # generates the shared part before the measurement starts
        names = [f"{NAMESPACE}/zb-{uuid4().hex}" for _ in range(_POOL if size == MIB else _SMALL_POOL)]
        registry.take_tokens(names)
        headers = {name: authorized(registry.authorization(name)) for name in names}
        return (
            partial(push, repository=name, headers=header, image=make(size))
            for name, header in headers.items()
        )

    return operations


def _pulls(size: int) -> Source:
    """Pull a few images of `size` bytes repeatedly."""

    def operations(registry: Registry) -> Iterator[Operation]:
        names = [f"{NAMESPACE}/zb-pull-{size}-{number}" for number in range(_PULLED)]
        return cycle([_pulling(registry, name, _same(size)) for name in names])

    return operations


def _pulling(registry: Registry, repository: str, image: Image) -> Operation:
    if repository not in registry.seeded:
        for blob in image:
            registry.put_blob(repository, blob)
        registry.put_manifest(repository, "latest", manifest(*image))
        registry.seeded.add(repository)
    headers = authorized(registry.authorization(repository))
    return partial(_pull, repository=repository, headers=headers, image=image)


def _mix(weights: Sequence[int], *sources: Source) -> Source:
    """Choose each operation from one of the sources at random, with these weights."""

    def operations(registry: Registry) -> Iterator[Operation]:
        chance = random.Random(0)
        started = [source(registry) for source in sources]
        return iter(lambda: next(chance.choices(started, weights)[0], None), None)

    return operations


def _work(name: str, source: Source, connections: tuple[int, ...] = (16,), writes: int = 0) -> Work:
    return Work(name, lambda registry, _: Loop(source(registry)), connections, writes=writes)


def _three(push: Push) -> list[Source]:
    return [_pushes(size * MIB, push) for size in (1, 10, 100)]


IMAGES: Final = (
    _work("push 1 MiB image", _pushes(MIB, _whole, _same), RATES, MIB),
    _work("push 1 MiB image, unique", _pushes(MIB), RATES, MIB),
    _work("push 1 MiB image in chunks", _pushes(MIB, _in_chunks, _same), RATES, MIB),
    _work("push 1 MiB image in chunks, unique", _pushes(MIB, _in_chunks), RATES, MIB),
    _work("pull 1 MiB image", _pulls(MIB), RATES),
    *(_work(f"push {size} MiB image, unique", _pushes(size * MIB), writes=size * MIB) for size in (10, 100)),
    *(
        _work(f"push {size} MiB image in chunks, unique", _pushes(size * MIB, _in_chunks), writes=size * MIB)
        for size in (10, 100)
    ),
    *(_work(f"pull {size} MiB image", _pulls(size * MIB)) for size in (10, 100)),
    _work("push 1, 10, 100 MiB (20:70:10), unique", _mix((20, 70, 10), *_three(_whole)), writes=17 * MIB),
    _work(
        "push 1, 10, 100 MiB in chunks (1:1:1), unique", _mix((1, 1, 1), *_three(_in_chunks)), writes=37 * MIB
    ),
    _work(
        "pull 1, 10, 100 MiB (20:70:10)", _mix((20, 70, 10), *(_pulls(size * MIB) for size in (1, 10, 100)))
    ),
    *(
        _work(
            f"pull and push {size} MiB (3:1), unique",
            _mix((3, 1), _pulls(size * MIB), _pushes(size * MIB)),
            writes=size * MIB // 4,
        )
        for size in (1, 10, 100)
    ),
)
