"""The scopes of the Docker token protocol: `type:name:action,action` (OCI 150-152)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Each scope costs a query, and a token with more would not fit into a request header of 8 KiB (OCI 159).
SCOPE_LIMIT: Final = 100

# A name may contain a host and port, so the type ends at the first colon and the actions begin after the last
# one. The name is visible ASCII: repository names contain nothing else, nor do headers.
_SCOPE: Final = re.compile(r"([a-z0-9]+)(?:\([a-z0-9]+\))?:([!-~]+):([a-z*,]*)")


@dataclass(frozen=True, slots=True)
class Scope:
    """The actions on one resource that a client requests or is granted; there may be none."""

    type: str
    name: str
    actions: frozenset[str]


def parse_scopes(values: Iterable[str]) -> tuple[Scope, ...]:
    """Parse the scopes of a token request; each value of the parameter is a list separated by spaces.

    Scopes on the same resource are merged, in the order of their first occurrence. Malformed scopes, and
    those of resources beyond SCOPE_LIMIT, are ignored: being granted less than requested is not an error (OCI
    152).
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
    """Format a scope as in challenges and token responses, with its actions in alphabetical order."""
    return f"{scope.type}:{scope.name}:{','.join(sorted(scope.actions))}"
