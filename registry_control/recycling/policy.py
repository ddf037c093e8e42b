"""The rules of restoring: pure functions of loaded facts, with a reason for people."""

from dataclasses import dataclass
from enum import StrEnum


class Presence(StrEnum):
    """Where something is that what is to be restored needs."""

    THERE = "there"
    RECYCLED = "recycled"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be there for a restore; None for what this kind of entry does not need."""

    namespace: Presence | None = None
    image: Presence | None = None
    manifest: Presence | None = None


def obstacle(needs: Needs) -> str | None:
    """Why it cannot be restored now, with what to do about it; None if nothing is in the way."""
    required = (("namespace", needs.namespace), ("image", needs.image), ("manifest", needs.manifest))
    for what, presence in required:
        match presence:
            case Presence.RECYCLED:
                return f"its {what} is in the recycle bin, too: restore the {what} first"
            case Presence.GONE:
                return f"its {what} has been deleted for good, so it cannot be restored any more"
    return None


def last_part(name: str, *, within: str, separator: str) -> str:
    """The name under which to restore, without the part that it shares with what contains it.

    A caller may send `app` as well as `team/app`, and `v1` as well as `team/app:v1`.
    """
    return name.removeprefix(within + separator)
