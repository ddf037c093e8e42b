"""The scopes of the Docker token protocol: `type:name:action,action` (checklist 150-152)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Each scope costs a look-up, and a token with more would not fit a request header of 8 KiB (checklist 159).
SCOPE_LIMIT: Final = 100

# A name may hold a host and port, so the type ends at the first colon and the actions begin at the last one.
# Visible ASCII, as more could be no repository's name, nor stand in a header.
_SCOPE: Final = re.compile(r"([a-z0-9]+)(?:\([a-z0-9]+\))?:([!-~]+):([a-z*,]*)")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a client asks for, or is granted, on one resource. No actions at all are legal."""

    type: str
    name: str
    actions: frozenset[str]


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Read the scopes of a token request: its repeated parameter's values, each with scopes between spaces.

    Scopes on the same resource are merged; the order is that of first mention. Malformed ones, and those on
    more than SCOPE_LIMIT resources, are left out: being granted less than asked is no error (checklist 152).
    """
    merged: dict[tuple[str, str], set[str]] = {}
    for match in (_SCOPE.fullmatch(word) for value in values for word in value.split()):
        if match is None:
            continue
        kind, name, actions = match.groups()
        if len(merged) < SCOPE_LIMIT or (kind, name) in merged:
            merged.setdefault((kind, name), set()).update(filter(None, actions.split(",")))
    return tuple(Scope(kind, name, frozenset(actions)) for (kind, name), actions in merged.items())


def format_scope(scope: Scope) -> str:
    """Write a scope as challenges and token answers have it, its actions in alphabetical order."""
    return f"{scope.type}:{scope.name}:{','.join(sorted(scope.actions))}"
