"""What keeps bytes of the storage, or makes figures of it wrong. Each app reports its own (see `signals`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an operator should know of who asks why the disk has not shrunk."""

    kind: str  # a stable name, for programs
    text: str  # for people, with what to do
    number: int | None = None  # of rows or objects; None if it has none
    bytes: int | None = None


def plural(number: int, one: str, many: str = "") -> str:
    """A number with a noun; without `many`, the plural has an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
