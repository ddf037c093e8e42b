"""Protected tags: a pure rule of the globs of a namespace."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from registry_control.common.globs import Globs


class Protection:
    """The globs of a namespace's protected tags and of the exceptions from them."""

    __slots__ = ("_exceptions", "_tags")

    def __init__(self, tags: Iterable[str], exceptions: Iterable[str]) -> None:
        self._tags = Globs(tags)
        self._exceptions = Globs(exceptions)

    def rule_for(self, tag: str) -> str | None:
        """The glob that protects a tag from being moved and deleted; None if the tag is not protected."""
        rule = self._tags.first(tag)
        return None if rule is None or self._exceptions.first(tag) is not None else rule

    def __bool__(self) -> bool:
        """Whether it may protect any tag."""
        return bool(self._tags)


UNPROTECTED: Final = Protection((), ())


@lru_cache(maxsize=256)
def protection(tags: tuple[str, ...], exceptions: tuple[str, ...]) -> Protection:
    """The protection by these globs, compiled once."""
    return Protection(tags, exceptions) if tags else UNPROTECTED
