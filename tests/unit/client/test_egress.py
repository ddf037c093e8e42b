"""Which addresses outgoing connections may use: classes of addresses, and the list of exceptions."""

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_data.client.addresses import kind_of, unmapped
from registry_data.client.egress import EgressPolicy
from registry_data.client.errors import EgressRefused

SPECIAL: Final = {
    "0.0.0.0": "an unspecified",
    "10.1.2.3": "a private",
    "100.64.0.1": "a carrier-grade NAT",
    "100.100.100.200": "a carrier-grade NAT",  # Alibaba's metadata service
    "127.0.0.1": "a loopback",
    "127.255.255.254": "a loopback",
    "168.63.129.16": "a cloud metadata",
    "169.254.169.254": "a link-local",
    "172.31.255.255": "a private",
    "192.0.0.192": "a reserved",  # Oracle's metadata service
    "192.168.0.1": "a private",
    "198.18.0.1": "a reserved",
    "224.0.0.1": "a multicast",
    "255.255.255.255": "a reserved",
    "::": "an unspecified",
    "::1": "a loopback",
    "::127.0.0.1": "a reserved",  # IPv4-compatible
    "64:ff9b::7f00:1": "a loopback",  # NAT64
    "64:ff9b::a9fe:a9fe": "a link-local",
    "64:ff9b:1::1": "a reserved",
    "2001:0:4136:e378:8000:63bf:80ff:fffe": "a reserved",  # Teredo
    "2002:7f00:1::1": "a reserved",  # 6to4
    "2001:db8::1": "a reserved",
    "fd00:ec2::254": "a private",  # AWS's metadata service
    "fe80::1": "a link-local",
    "fec0::1": "a private",
    "ff02::1": "a multicast",
}
PUBLIC: Final = (
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "64:ff9b::101:101",
    "2a00::1",
)


def _address(text: str) -> IPv4Address | IPv6Address:
    return IPv6Address(text) if ":" in text else IPv4Address(text)


@pytest.mark.parametrize(("text", "kind"), SPECIAL.items())
def test_special_addresses_have_a_kind(text: str, kind: str) -> None:
    assert kind_of(_address(text)) == kind


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_have_none(text: str) -> None:
    assert kind_of(_address(text)) is None
    EgressPolicy().check(text)


@given(st.ip_addresses(v=4))
def test_a_mapped_or_translated_address_is_treated_like_the_address_in_it(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    assert unmapped(mapped) == address
    assert kind_of(IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))) == kind_of(address)


@given(st.ip_addresses())
def test_no_address_is_public_that_python_knows_as_private(address: IPv4Address | IPv6Address) -> None:
    if kind_of(unmapped(address)) is None and address not in ip_network("64:ff9b::/96"):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    "host",
    [
        *SPECIAL,
        "2130706433",  # decimal
        "0x7f000001",
        "0177.0.0.1",  # octal
        "127.1",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
        "::ffff:169.254.169.254",
        "fe80::1%lo",
        "localhost",
        "LOCALHOST.",
        "registry.localhost",
    ],
)
def test_each_form_of_a_special_address_is_refused_without_a_name_server(host: str) -> None:
    with pytest.raises(EgressRefused, match="REGISTRY_EGRESS_ALLOW") as refused:
        EgressPolicy().check(host)
    assert host in str(refused.value)


def test_a_name_is_left_to_the_connection() -> None:
    EgressPolicy().check("registry.example")


def test_resolving_refuses_what_the_check_refuses() -> None:
    for host in ("127.0.0.1", "2130706433", "0177.0.0.1", "::ffff:127.0.0.1", "localhost"):
        with pytest.raises(EgressRefused, match="a loopback address"):
            EgressPolicy().resolve(host, 443)


def test_a_public_address_resolves_to_itself() -> None:
    assert EgressPolicy().resolve("1.1.1.1", 443) == ("1.1.1.1",)


@pytest.mark.parametrize(
    ("allowed", "host", "port", "is_allowed"),
    [
        ("127.0.0.0/8", "127.0.0.1", 443, True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", 443, True),
        ("127.0.0.1", "127.0.0.2", 443, False),
        ("::1/128", "::1", 443, True),
        ("10.0.0.0/8", "127.0.0.1", 443, False),
        ("localhost", "localhost", 443, True),
        ("LocalHost", "LOCALHOST", 80, True),
        ("localhost:5000", "localhost", 5000, True),
        ("localhost:5000", "localhost", 5001, False),
        ("127.0.0.1:5000", "127.0.0.1", 5000, True),
        ("127.0.0.1:5000", "127.0.0.1", 80, False),
        ("[::1]:5000", "::1", 5000, True),
        ("[::1]:5000", "[::1]", 5001, False),
        ("host", "localhost", 443, False),
    ],
)
def test_exceptions(allowed: str, host: str, port: int, *, is_allowed: bool) -> None:
    policy = EgressPolicy.parse(f"other.example, {allowed} 192.0.2.0/24")
    if is_allowed:
        policy.check(host, port)
        assert policy.resolve(host, port)
    else:
        with pytest.raises(EgressRefused):
            policy.check(host, port)
        with pytest.raises(EgressRefused):
            policy.resolve(host, port)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "https://a", "a/b", "a:0", "a:65536", "a:b", "*", "*.example", "-a", "[a]", "ü"]
)
def test_an_invalid_exception_is_an_error_that_contains_it(entry: str) -> None:
    with pytest.raises(ValueError, match="is neither a host name") as error:
        EgressPolicy.parse(f"10.0.0.0/8,{entry}")
    assert repr(entry) in str(error.value)


@given(st.text(max_size=40))
def test_every_text_is_a_policy_or_a_value_error(text: str) -> None:
    try:
        policy = EgressPolicy.parse(text)
    except ValueError:
        return
    assert bool(policy.hosts or policy.networks) == bool(text.replace(",", " ").strip())


def test_nothing_is_allowed_by_default() -> None:
    assert EgressPolicy.parse(" , ") == EgressPolicy()
