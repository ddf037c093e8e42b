"""How fast we must be at least, as ratios within one run on one machine."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from bench.sides import REFERENCE, REFERENCE_ON_MINIO

_SAME: Final = frozenset(
    f"manifest {method} by {by}" for method in ("GET", "HEAD") for by in ("tag", "digest")
)
_ANOTHER: Final = frozenset(f"manifest GET by {by}, another each time" for by in ("tag", "digest"))
_OURS: Final = frozenset({"sqlite", "postgresql", "minio"})
_ON_DISK: Final = frozenset({"sqlite", "postgresql"})
_ON_MINIO: Final = frozenset({"minio"})
_POSTGRESQL: Final = frozenset({"postgresql", "minio"})
_UPLOADS: Final = frozenset(
    f"upload of 200 MB, {how}" for how in ("one PATCH", "monolithic", "chunks of 5 MB")
)
_IMAGES: Final = frozenset(
    {"push 1 MiB image", "push 1 MiB image, unique", "push 1 MiB image in chunks, unique", "pull 1 MiB image"}
)


@dataclass(frozen=True, slots=True)
class Floor:
    """These sides do these works at least `ratio` times as fast as `against`."""

    works: Collection[str]
    sides: Collection[str]
    ratio: float
    connections: Collection[int] = (16,)
    against: str = REFERENCE


FLOORS: Final = (
    Floor(_SAME | _ANOTHER, {"sqlite"}, 4),
    Floor(_SAME, _POSTGRESQL, 4),
    Floor(_ANOTHER, _POSTGRESQL, 0.8),
    Floor({"blob HEAD", "blob GET 1 KiB"}, _OURS, 12),
    Floor({"blob GET 200 MB"}, _ON_DISK, 1.3, (1, 16)),
    Floor({"blob GET 200 MB"}, _ON_DISK, 0.9, (1, 16), against="nginx"),
    Floor(_UPLOADS, _ON_DISK, 1.5, (1, 16)),
    Floor(_IMAGES, _ON_DISK, 2, (1, 16, 64)),
    # Bytes that go through an object store are compared with a peer's that go through the same one.
    Floor({"blob GET 200 MB"}, _ON_MINIO, 1.3, (1, 16), against=REFERENCE_ON_MINIO),
    Floor(_UPLOADS, _ON_MINIO, 1.5, (1, 16), against=REFERENCE_ON_MINIO),
    Floor(_IMAGES, _ON_MINIO, 2, (1, 16, 64), against=REFERENCE_ON_MINIO),
)


def floors_for(work: str, side: str, connections: int) -> list[Floor]:
    return [
        floor
        for floor in FLOORS
        if work in floor.works and side in floor.sides and connections in floor.connections
    ]
