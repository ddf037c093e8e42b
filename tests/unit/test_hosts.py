"""What may stand in a Host header, and so in the challenge that names the token endpoint."""

import pytest

from registry_data.http.hosts import is_host


@pytest.mark.parametrize(
    "value",
    ["localhost", "registry.example", "Registry.Example:5000", "my_registry:5000", "127.0.0.1", "[::1]:443"],
)
def test_names_and_addresses_are_hosts(value: str) -> None:
    assert is_host(value.encode())


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":5000",
        "a b",
        "a, b",
        'a"b',
        "a/b",
        "user@a",
        "a:b",
        "a:1:2",
        "::1",
        "[::1",
        "[x]",
        "a\\b",
        "%zz",
        "b\xfc",
        "a\n",
        "a" * 300,
    ],
)
def test_anything_else_is_none(value: str) -> None:
    assert not is_host(value.encode("latin-1"))
