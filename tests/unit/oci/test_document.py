import json

import pytest

from registry_data.oci.document import NESTING_LIMIT, VALUE_LIMIT, read_document
from registry_data.oci.errors import ErrorCode, ProtocolError


def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    inner = levels - 1  # the document itself is one
    return b'{"a":' + opening * inner + closing * inner + b"}"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is not JSON: Expecting value"),
        (b"null", "must be an object"),
        (b"[]", "must be an object"),
        (b'"{}"', "must be an object"),
        (b"{} {}", "is not JSON: Extra data"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": 1,}', "is not JSON"),
        (b'{"a": 01}', "is not JSON"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": "\n"}', "is not JSON: Invalid control character"),
        (b'{"a": 1', "its brackets do not match"),
        (b'{"a": [}]', "is not JSON"),
        (b'{"a": "', "its brackets do not match"),
        (b'{"a": "\\', "its brackets do not match"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7)"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "the key 'a' occurs twice"),
        (b'{"a": %s}' % (b"9" * 5000), "are its numbers too long?"),
    ],
)
def test_invalid_json_is_rejected_with_the_reason(payload: bytes, message: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        read_document(payload)
    assert raised.value.code is ErrorCode.MANIFEST_INVALID
    assert message in raised.value.message


@pytest.mark.oci(94)
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"":', b"}")])
def test_nesting_is_allowed_up_to_the_limit(brackets: tuple[bytes, bytes]) -> None:
    opening, closing = brackets
    innermost = b"" if opening == b"[" else b"1"
    read_document(nested(NESTING_LIMIT, opening, closing).replace(closing, innermost + closing, 1))
    for levels in (NESTING_LIMIT + 1, 1000, 100_000):
        with pytest.raises(ProtocolError, match="nested more than 64 levels deep"):
            read_document(nested(levels, opening, closing).replace(closing, innermost + closing, 1))


@pytest.mark.parametrize("payload", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":"\\"' + b"[" * 100])
def test_unclosed_brackets_are_rejected_without_parsing(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_document(payload)


@pytest.mark.parametrize(("value", "count"), [("[]", VALUE_LIMIT // 2), ("1", VALUE_LIMIT - 1)])
def test_the_number_of_values_is_limited(value: str, count: int) -> None:
    most = '{"a":[' + ",".join([value] * (count - 1)) + "]}"
    read_document(most.encode())
    with pytest.raises(ProtocolError, match="too many fields and entries; 100000 at most"):
        read_document(most.replace("]}", f",{value},{value}]}}").encode())


def test_a_document_with_too_many_fields_is_rejected_without_parsing() -> None:
    fields = ",".join(f'"{number}":""' for number in range(4 * VALUE_LIMIT))
    with pytest.raises(ProtocolError, match="too many fields and entries"):
        read_document(f'{{"annotations":{{{fields}}}'.encode())  # without the end, so not JSON


@pytest.mark.parametrize(
    "text",
    ["[" * 1000, "{" * 1000, '"' + "[" * 1000, '\\"' + "[" * 1000, "\\\\", '\\\\"' + "{[" * 1000, "\\", "]"],
)
def test_brackets_inside_strings_are_not_counted(text: str) -> None:
    payload = json.dumps({"a": text, "ends in an escape": "\\", "[" * 1000: ""}).encode()
    assert read_document(payload).text("a") == text
