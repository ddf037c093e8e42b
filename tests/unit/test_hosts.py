"""Validation of Host headers, whose value becomes part of the challenge's token endpoint."""

import pytest

from registry_data.http.hosts import is_host


@pytest.mark.parametrize(
    "value",
    ["localhost", "registry.example", "Registry.Example:5000", "my_registry:5000", "127.0.0.1", "[::1]:443"],
)
def test_names_and_addresses_with_and_without_ports_are_valid(value: str) -> None:
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
def test_any_other_value_is_invalid(value: str) -> None:
    assert not is_host(value.encode("latin-1"))
