"""A strict JSON parser for untrusted manifests (OCI 94).

Every error is a MANIFEST_INVALID that names the field and the type that it must have. `json.loads` alone
would accept NaN, UTF-16 and duplicate keys, and would return strings that PostgreSQL cannot store.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from registry_data.oci.errors import ErrorCode, ProtocolError, shown

NESTING_LIMIT: Final = 64  # levels of objects and arrays; manifests need 5
# A document of few bytes can take much memory and processor time; a manifest needs about 8 values per layer.
VALUE_LIMIT: Final = 100_000  # values of all objects and arrays together, themselves included
INTEGER_LIMIT: Final = 2**63 - 1

_TO_BRACES: Final = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

_T = TypeVar("_T")


def invalid(message: str) -> ProtocolError:
    """Create the error for an invalid manifest."""
    return ProtocolError(ErrorCode.MANIFEST_INVALID, message)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object and its path in the document. A field that is null counts as absent, as in Go."""

    values: Mapping[str, object]
    place: str = ""

    def path(self, name: str) -> str:
        """Return the path of a field, such as `layers[2].size`."""
        return f"{self.place}.{name}" if self.place else name

    def has(self, name: str) -> bool:
        """Return whether the field is present and not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """Return a string, "" when absent."""
        return _storable(self._typed(name, str, "a string") or "", self.path(name))

    def integer(self, name: str) -> int:
        """Return an integer from 0 to 2^63-1; the field is required."""
        value = self._typed(name, int, "an integer")
        # In Python, True is an int.
        if value is None or isinstance(value, bool) or not 0 <= value <= INTEGER_LIMIT:
            raise invalid(f"{self.path(name)} must be an integer from 0 to {INTEGER_LIMIT}")
        return value

    def child(self, name: str) -> "Fields | None":
        """Return an object, None when absent."""
        value: dict[str, object] | None = self._typed(name, dict, "an object")
        return None if value is None else Fields(value, self.path(name))

    def children(self, name: str, *, limit: int) -> tuple["Fields", ...]:
        """Return the objects of an array with at most `limit` entries, none when absent."""
        values = self._list(name)
        if len(values) > limit:
            raise invalid(f"{self.path(name)} has {len(values)} entries; {limit} at most are allowed")
        return tuple(_as_fields(value, f"{self.path(name)}[{at}]") for at, value in enumerate(values))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the strings of an array, none when absent."""
        return tuple(_as_text(value, f"{self.path(name)}[{at}]") for at, value in enumerate(self._list(name)))

    def text_map(self, name: str) -> dict[str, str]:
        """Return an object of strings, empty when absent; a null value is the empty string, as in Go."""
        value: dict[str, object] = self._typed(name, dict, "an object") or {}
        path = self.path(name)
        return {
            _storable(key, path): "" if text is None else _as_text(text, f"{path}[{shown(key)}]")
            for key, text in value.items()
        }

    def refuse_lookalikes(self, names: Iterable[str]) -> None:
        """Reject a field whose name differs from one of `names` in case only.

        Go's JSON decoder, and so nearly every client, reads `Layers` as `layers`. It would see another image
        than the registry, with content that the registry has neither checked nor linked.
        """
        exact = {name.casefold(): name for name in names}
        for key in self.values:
            name = exact.get(key.casefold(), key)
            if name != key:
                raise invalid(f"{self.path(shown(key))} must be written {name}")

    def _list(self, name: str) -> list[object]:
        return self._typed(name, list, "an array") or []

    def _typed(self, name: str, kind: type[_T], called: str) -> _T | None:
        value = self.values.get(name)
        if value is None or isinstance(value, kind):
            return value
        raise invalid(f"{self.path(name)} must be {called}")


def read_document(payload: bytes) -> Fields:
    """Parse a JSON object in UTF-8; duplicate keys, NaN, and anything above the limits are errors."""
    _check_size(payload)
    try:
        value = json.loads(payload.decode(), object_pairs_hook=_as_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise invalid(f"the manifest is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise invalid(f"the manifest is not JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        # A number with thousands of digits; or a caller that has used most of the stack.
        raise invalid("the manifest cannot be read as JSON; are its numbers too long?") from error
    return _as_fields(value, "")


def _check_size(payload: bytes) -> None:
    """Refuse, by its quotes, commas and brackets alone, a document that is too deep or too large to parse.

    Working on bytes is correct: in UTF-8, no other character contains a quote, backslash or bracket. Each
    step runs in C. Invalid JSON may be misread here, but only behind the point where the parser stops as
    well.
    """
    unescaped = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * VALUE_LIMIT:  # a member of an object has two strings at most
        raise _too_many_values()
    outside_strings = b"".join(unescaped.split(b'"')[::2])
    braces = outside_strings.translate(_TO_BRACES, _NO_BRACKETS)
    # In a container, each value but the first follows a comma.
    if outside_strings.count(b",") + braces.count(b"{") > VALUE_LIMIT:
        raise _too_many_values()
    for _ in range(NESTING_LIMIT):
        if not braces:
            return
        braces = braces.replace(b"{}", b"")  # removes the innermost level
    if braces:
        raise invalid(
            f"the manifest is nested more than {NESTING_LIMIT} levels deep, or its brackets do not match"
        )


def _too_many_values() -> ProtocolError:
    return invalid(f"the manifest has too many fields and entries; {VALUE_LIMIT} at most are allowed")


def _as_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        # Parsers differ in which of the two they return, so the same bytes would be two manifests.
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise invalid(f"the key {shown(twice)} occurs twice in one object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise invalid(f"the manifest is not JSON: {name} is not a JSON number")


def _as_fields(value: object, place: str) -> Fields:
    if not isinstance(value, dict):
        raise invalid(f"{place or 'the manifest'} must be an object")
    return Fields(value, place)


def _as_text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise invalid(f"{place} must be a string")
    return _storable(value, place)


def _storable(text: str, place: str) -> str:
    # JSON can contain both, but PostgreSQL can store neither.
    if _UNSTORABLE.search(text):
        raise invalid(f"{place} must not contain NUL or half of a surrogate pair")
    return text
