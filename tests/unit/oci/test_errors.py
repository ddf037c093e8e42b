import pickle
from http import HTTPStatus

import pytest

from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError, shown

# The statuses of OCI 142, repeated here so that the test finds mistakes in the table.
STATUSES = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 400,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "PAGINATION_NUMBER_INVALID": 400,
    "RANGE_INVALID": 416,
    "SIZE_INVALID": 400,
    "TAG_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNAVAILABLE": 503,
    "UNKNOWN": 500,
    "UNSUPPORTED": 405,
}


@pytest.mark.oci(142)
def test_every_code_has_the_status_of_the_checklist() -> None:
    assert {code.name: int(code.status) for code in ErrorCode} == STATUSES


def test_every_code_has_a_distinct_message() -> None:
    assert len({code.message for code in ErrorCode}) == len(ErrorCode)


def test_status_and_message_default_to_those_of_the_code() -> None:
    error = ProtocolError(ErrorCode.BLOB_UNKNOWN, digest="sha256:00")
    assert (error.code, error.status) == (ErrorCode.BLOB_UNKNOWN, HTTPStatus.NOT_FOUND)
    assert error.message == ErrorCode.BLOB_UNKNOWN.message
    assert error.detail == {"digest": "sha256:00"}
    assert error.headers == {}
    assert error.errors == (ErrorItem(error.code, error.message, {"digest": "sha256:00"}),)


def test_message_status_and_headers_of_an_error_can_be_set() -> None:
    error = ProtocolError(
        ErrorCode.UNAVAILABLE,
        "the disk is full",
        status=HTTPStatus.INSUFFICIENT_STORAGE,
        headers={"Retry-After": "60"},
    )
    assert (error.message, error.status) == ("the disk is full", HTTPStatus.INSUFFICIENT_STORAGE)
    assert error.headers == {"Retry-After": "60"}
    assert str(error) == "UNAVAILABLE: the disk is full"


def test_several_errors_are_one_response_with_the_status_of_the_first() -> None:
    # given two missing blobs of a manifest
    missing = [
        ErrorItem(ErrorCode.MANIFEST_BLOB_UNKNOWN, f"blob {name} is missing", {"digest": name})
        for name in ("a", "b")
    ]

    # when one error reports both
    error = ProtocolError.several(iter(missing))

    # then the details of both are in it
    assert error.errors == tuple(missing)
    assert (error.code, error.status) == (ErrorCode.MANIFEST_BLOB_UNKNOWN, HTTPStatus.BAD_REQUEST)
    assert (error.message, error.detail) == ("blob a is missing", {"digest": "a"})
    assert str(error) == "MANIFEST_BLOB_UNKNOWN: blob a is missing; MANIFEST_BLOB_UNKNOWN: blob b is missing"


def test_a_response_needs_at_least_one_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ProtocolError.several([])


def test_an_error_can_be_pickled() -> None:
    error = ProtocolError(ErrorCode.RANGE_INVALID, "no", headers={"Range": "0-9"}, size=10)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.errors, copy.status, copy.headers) == (error.errors, error.status, error.headers)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("latest", "'latest'"),
        ("a\r\nSet-Cookie: x", r"'a\r\nSet-Cookie: x'"),
        ("\udc80", r"'\udc80'"),
        ("x" * 500, f"'{'x' * 80}...'"),
    ],
)
def test_text_of_a_client_is_escaped_and_truncated_in_messages(sent: str, expected: str) -> None:
    assert shown(sent) == expected
