"""The client's address, scheme and host from the headers of trusted proxies."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.proxies import client_scope, parse_address

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def seen(peer: str, *headers: tuple[str, str]) -> tuple[str, str, str]:
    """The client's address, scheme and host as the planes see them."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope: dict[str, Any] = {
        "type": "http",
        "client": (peer, 51000),
        "scheme": "http",
        "headers": [(b"host", b"inner:5000"), *raw],
    }
    changed = client_scope(scope, TRUSTED)
    return changed["client"][0], changed["scheme"], dict(changed["headers"])[b"host"].decode()


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # the peer is not trusted
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),  # a client may send any address
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.7", "10.0.0.7"),  # a client in the proxies' own network
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),  # IPv4 on a dual-stack socket
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "203.0.113.7:51000", "203.0.113.7"),
        ("10.0.0.1", '"203.0.113.7:51000"', "203.0.113.7"),
        ("10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", "1.1.1.1:1, 203.0.113.7:2, 10.0.0.2:3", "203.0.113.7"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxys(
    peer: str, forwarded: str, address: str
) -> None:
    assert seen(peer, ("X-Forwarded-For", forwarded))[0] == address


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("X-Forwarded-Proto", "https")], ("10.0.0.1", "https", "inner:5000")),
        ([("X-Forwarded-Host", "hub.example:8443")], ("10.0.0.1", "http", "hub.example:8443")),
        (
            [("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-For", "1.2.3.4")],
            ("1.2.3.4", "https", "inner:5000"),
        ),
        # The client's own value is followed by the proxy's.
        ([("X-Forwarded-Proto", "https, http")], ("10.0.0.1", "http", "inner:5000")),
        ([("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")], ("10.0.0.1", "http", "inner:5000")),
        # Two proxies that append, and two of which the inner one replaces.
        (
            [("X-Forwarded-For", "1.2.3.4, 10.0.0.2"), ("X-Forwarded-Proto", "https, http")],
            ("1.2.3.4", "https", "inner:5000"),
        ),
        (
            [("X-Forwarded-For", "1.2.3.4, 10.0.0.2"), ("X-Forwarded-Proto", "https")],
            ("1.2.3.4", "https", "inner:5000"),
        ),
        ([("X-Forwarded-Proto", "gopher")], ("10.0.0.1", "http", "inner:5000")),
        ([("X-Forwarded-Host", 'a"b')], ("10.0.0.1", "http", "inner:5000")),
        (
            [("Forwarded", 'for="[2001:db8::7]:4711";proto=https;host="hub.example:8443"')],
            ("2001:db8::7", "https", "hub.example:8443"),
        ),
        (
            [("Forwarded", "For=1.2.3.4; Proto=https, for=10.0.0.2;proto=http")],
            ("1.2.3.4", "https", "inner:5000"),
        ),
        ([("Forwarded", "for=1.2.3.4"), ("Forwarded", "for=10.0.0.2")], ("1.2.3.4", "http", "inner:5000")),
        ([("Forwarded", "for=_hidden;proto=https")], ("10.0.0.1", "https", "inner:5000")),
        ([("Forwarded", 'for="1.2.3.4')], ("10.0.0.1", "http", "inner:5000")),
        # A proxy that sets X-Forwarded headers often passes on a client's Forwarded.
        (
            [("Forwarded", "for=6.6.6.6;proto=https"), ("X-Forwarded-For", "1.2.3.4")],
            ("1.2.3.4", "http", "inner:5000"),
        ),
    ],
)
def test_scheme_and_host_are_those_that_the_outermost_trusted_proxy_received(
    headers: list[tuple[str, str]], expected: tuple[str, str, str]
) -> None:
    assert seen("10.0.0.1", *headers) == expected
    assert seen("203.0.113.9", *headers) == ("203.0.113.9", "http", "inner:5000")


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6, network="2001:db8::/32"))


@given(address=addresses, port=st.integers(0, 65535), quoted=st.booleans())
def test_an_address_is_the_same_in_every_form(
    address: IPv4Address | IPv6Address, port: int, quoted: bool
) -> None:
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    for node in (str(address), bracketed, f"{bracketed}:{port}", f" {bracketed}:_x "):
        assert parse_address(f'"{node}"' if quoted else node) == address


names = st.sampled_from(["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"])
values = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.text(st.sampled_from('for=protohs;,". \\[]:0123'), max_size=60),
)


@given(headers=st.lists(st.tuples(names, values), max_size=6))
def test_any_header_results_in_a_valid_address_scheme_and_host(
    headers: list[tuple[str, str]],
) -> None:
    address, scheme, host = seen("10.0.0.1", *headers)
    assert parse_address(address) is not None
    assert scheme in ("http", "https")
    assert not set(host) & set(' "\\,;/@\r\n')


@given(headers=st.lists(st.tuples(names, values), max_size=6), peer=st.ip_addresses(v=4))
def test_a_peer_that_is_not_trusted_changes_nothing(
    headers: list[tuple[str, str]], peer: IPv4Address
) -> None:
    if peer not in TRUSTED[0]:
        assert seen(str(peer), *headers) == (str(peer), "http", "inner:5000")


@pytest.mark.parametrize(
    "sent", ['"', "for", "for=1.2.3.4;", "=;,=", "x" * 100_000, "a=b;" * 30_000, "," * 100_000]
)
def test_the_element_of_a_proxy_counts_after_whatever_a_client_sent(sent: str) -> None:
    forwarded = f"{sent}, for=198.51.100.1;proto=https;host=hub.example"
    assert seen("10.0.0.1", ("Forwarded", forwarded)) == ("198.51.100.1", "https", "hub.example")
    assert seen("10.0.0.1", ("X-Forwarded-For", f"{sent}, 198.51.100.1"))[0] == "198.51.100.1"
