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
    """A list of globs, compiled to one expression for many texts."""

    __slots__ = ("_globs", "_pattern")

    def __init__(self, globs: Iterable[str]) -> None:
        self._globs = tuple(dict.fromkeys(globs))
        self._pattern = _compiled("|".join(f"({_expression(glob)})" for glob in self._globs))

    def first(self, text: str) -> str | None:
        """The first glob of the list that matches the whole text; None if none does."""
        found = self._pattern.fullmatch(text) if self._globs else None
        # Each alternative is a group, and no other part of the expression is one.
        return None if found is None or found.lastindex is None else self._globs[found.lastindex - 1]

    def __bool__(self) -> bool:
        """Whether the list has globs."""
        return bool(self._globs)


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
