import pickle
from http import HTTPStatus

import pytest

from registry_data.oci.errors import ErrorCode, ErrorItem, ProtocolError, shown

# Checklist 142, written out again so that no slip in the table goes unseen.
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


def test_every_code_says_something_of_its_own() -> None:
    assert len({code.message for code in ErrorCode}) == len(ErrorCode)


def test_an_error_falls_back_to_its_codes_status_and_text() -> None:
    error = ProtocolError(ErrorCode.BLOB_UNKNOWN, digest="sha256:00")
    assert (error.code, error.status) == (ErrorCode.BLOB_UNKNOWN, HTTPStatus.NOT_FOUND)
    assert error.message == ErrorCode.BLOB_UNKNOWN.message
    assert error.detail == {"digest": "sha256:00"}
    assert error.headers == {}
    assert error.errors == (ErrorItem(error.code, error.message, {"digest": "sha256:00"}),)


def test_an_error_may_have_its_own_text_status_and_headers() -> None:
    error = ProtocolError(
        ErrorCode.UNAVAILABLE,
        "the disk is full",
        status=HTTPStatus.INSUFFICIENT_STORAGE,
        headers={"Retry-After": "60"},
    )
    assert (error.message, error.status) == ("the disk is full", HTTPStatus.INSUFFICIENT_STORAGE)
    assert error.headers == {"Retry-After": "60"}
    assert str(error) == "UNAVAILABLE: the disk is full"


def test_several_errors_make_one_answer_with_the_status_of_the_first() -> None:
    # given two blobs that a manifest lacks
    missing = [
        ErrorItem(ErrorCode.MANIFEST_BLOB_UNKNOWN, f"blob {name} is missing", {"digest": name})
        for name in ("a", "b")
    ]

    # when both are refused at once
    error = ProtocolError.several(iter(missing))

    # then nothing of either is lost
    assert error.errors == tuple(missing)
    assert (error.code, error.status) == (ErrorCode.MANIFEST_BLOB_UNKNOWN, HTTPStatus.BAD_REQUEST)
    assert (error.message, error.detail) == ("blob a is missing", {"digest": "a"})
    assert str(error) == "MANIFEST_BLOB_UNKNOWN: blob a is missing; MANIFEST_BLOB_UNKNOWN: blob b is missing"


def test_an_answer_without_any_error_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ProtocolError.several([])


def test_an_error_survives_the_way_between_two_processes() -> None:
    error = ProtocolError(ErrorCode.RANGE_INVALID, "no", headers={"Range": "0-9"}, size=10)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.errors, copy.status, copy.headers) == (error.errors, error.status, error.headers)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("latest", "'latest'"),
        ("a\r\nSet-Cookie: x", r"'a\r\nSet-Cookie: x'"),
        ("\udc80", r"'\udc80'"),
        ("x" * 500, f"'{'x' * 80}...'"),
    ],
)
def test_what_a_client_sent_is_repeated_escaped_and_cut(sent: str, said: str) -> None:
    assert shown(sent) == said
