import hashlib

import pytest

from registry_data.oci.digest import ALGORITHMS, Digest, Hashers, check_algorithm
from registry_data.oci.errors import ErrorCode, ProtocolError

HEX = "0123456789abcdef"


@pytest.mark.parametrize("text", [f"sha256:{HEX * 4}", f"sha512:{HEX * 8}"])
def test_a_digest_is_its_algorithm_and_its_hexadecimal_digits(text: str) -> None:
    digest = Digest.parse(text)
    assert (digest.algorithm, digest.encoded) == (text[:6], text[7:])
    assert str(digest) == text


@pytest.mark.oci(23)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a digest; write it as sha256:"),
        ("latest", "is not a digest; write it as sha256:"),
        ("sha256:totallywrong", "exactly 64 lower-case"),
        ("sha256:", "exactly 64 lower-case"),
        (f"sha256:{HEX * 4}0", "exactly 64 lower-case"),
        (f"sha256:{HEX * 4}"[:-1], "exactly 64 lower-case"),
        (f"sha256:{HEX.upper() * 4}", "exactly 64 lower-case"),
        (f"sha256:{HEX * 4}\n", "exactly 64 lower-case"),
        (f" sha256:{HEX * 4}", "' sha256' is not supported"),
        (f"sha256:{'٣' * 64}", "exactly 64 lower-case"),
        (f"sha512:{HEX * 4}", "exactly 128 lower-case"),
        (f"SHA256:{HEX * 4}", "'SHA256' is not supported; use sha256 or sha512"),
        (f"blake3:{HEX * 4}", "'blake3' is not supported; use sha256 or sha512"),
        (f"md5:{HEX * 2}", "'md5' is not supported"),
        (":", "'' is not supported"),
    ],
)
def test_a_malformed_or_unsupported_digest_is_rejected_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        Digest.parse(text)
    assert raised.value.code is ErrorCode.DIGEST_INVALID
    assert reason in raised.value.message


def test_the_default_algorithm_of_a_digest_is_sha256() -> None:
    assert str(Digest.of(b"{}")) == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    assert str(Digest.of(b"{}", "sha512")) == f"sha512:{hashlib.sha512(b'{}').hexdigest()}"


def test_an_algorithm_of_python_that_the_registry_does_not_support_is_rejected() -> None:
    for make in (lambda: Digest.of(b"", "md5"), lambda: Hashers(["md5"]), lambda: check_algorithm("md5")):
        with pytest.raises(ProtocolError, match="'md5' is not supported"):
            make()


def test_digests_are_hashable_and_immutable() -> None:
    digest = Digest.of(b"x")
    assert {digest: 1}[Digest.parse(str(digest))] == 1
    with pytest.raises(AttributeError):
        digest.encoded = "0"  # type: ignore[misc]


def test_hashers_compute_several_digests_of_one_stream() -> None:
    # given hashers of every algorithm
    hashers = Hashers(ALGORITHMS)
    assert hashers.algorithms == frozenset(ALGORITHMS)

    # when the stream is hashed in pieces of two types
    hashers.update(b"he")
    hashers.update(memoryview(b"llo"))

    # then each digest is that of all bytes so far
    for algorithm in ALGORITHMS:
        assert hashers.digest(algorithm) == Digest.of(b"hello", algorithm)
    hashers.update(b"!")
    assert hashers.digest() == Digest.of(b"hello!")


def test_the_default_algorithm_of_hashers_is_sha256() -> None:
    hashers = Hashers()
    assert hashers.algorithms == {"sha256"}
    with pytest.raises(KeyError):
        hashers.digest("sha512")
