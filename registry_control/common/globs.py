"""Globs of `*` (any characters, slashes too, or none) and `?` (one character); other characters are literal.

A glob becomes a regular expression in which each text between two `*` is found once, at its first place, and
never looked for again: an atomic group. So matching needs no backtracking, and its time is bounded by the
product of both lengths, however many `*` there are.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_WILDCARDS: Final = frozenset("*?")


def is_glob(text: str) -> bool:
    """Whether a text has wildcards, so that it may stand for several names."""
    return not _WILDCARDS.isdisjoint(text)


def matches(glob: str, text: str) -> bool:
    """Whether a glob matches a whole text."""
    return _compiled(_expression(glob)).fullmatch(text) is not None


def matches_any(globs: Iterable[str], text: str) -> bool:
    """Whether one of the globs matches the text."""
    return any(matches(glob, text) for glob in globs)


class Globs:
    """A list of globs, compiled for many texts."""

    __slots__ = ("_any", "_each")

    def __init__(self, globs: Iterable[str]) -> None:
        expressions = {glob: _expression(glob) for glob in globs}
        self._each = {glob: _compiled(expression) for glob, expression in expressions.items()}
        self._any = _compiled("|".join(f"(?:{each})" for each in expressions.values()))

    def first(self, text: str) -> str | None:
        """The first glob of the list that matches the whole text; None if none does."""
        if not self._each or self._any.fullmatch(text) is None:
            return None
        return next(glob for glob, pattern in self._each.items() if pattern.fullmatch(text))

    def __bool__(self) -> bool:
        """Whether the list has globs."""
        return bool(self._each)


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL)


def _expression(glob: str) -> str:
    first, *others = (_literal(part) for part in glob.split("*"))
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + f".*{last}"


def _literal(text: str) -> str:
    return "".join("." if character == "?" else re.escape(character) for character in text)
