"""Globs of `*` and `?`: what they match, and how long that takes."""

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_control.common.globs import Globs, is_glob, matches, matches_any

TEXTS = st.text(alphabet="ab/.\n", max_size=12)
GLOBS = st.text(alphabet="ab/.*?", max_size=12)
ODD = st.text(alphabet="[]!-\\^$(){}|+.*?ab", max_size=12)


@given(GLOBS, TEXTS)
def test_a_glob_matches_as_in_fnmatch(glob: str, text: str) -> None:
    assert matches(glob, text) == bool(re.fullmatch(fnmatch.translate(glob), text))


@given(ODD, ODD)
def test_brackets_and_other_characters_of_expressions_are_literal(glob: str, text: str) -> None:
    in_fnmatch = re.sub(r"\[", "[[]", glob)
    assert matches(glob, text) == bool(re.fullmatch(fnmatch.translate(in_fnmatch), text))


@given(TEXTS)
def test_a_text_matches_itself_and_everything_matches_a_star(text: str) -> None:
    assert matches(text, text)
    assert matches("*", text)
    assert is_glob(text) is False


@given(st.lists(GLOBS, max_size=5), TEXTS)
def test_a_list_finds_the_first_glob_that_matches(globs: list[str], text: str) -> None:
    expected = next((glob for glob in globs if matches(glob, text)), None)
    assert Globs(globs).first(text) == expected
    assert matches_any(globs, text) == (expected is not None)
    assert bool(Globs(globs)) == bool(globs)


@pytest.mark.parametrize("glob", ["*a" * 100 + "b", "*a?" * 80 + "*b", "?*" * 120 + "b"])
def test_a_costly_glob_is_fast(glob: str) -> None:
    began = time.monotonic()
    assert not matches(glob, "a" * 255)
    assert time.monotonic() - began < 1
