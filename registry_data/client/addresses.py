"""Classifies IP addresses: which of them belong to this machine, its network or its cloud provider.

The lists follow the IANA registries of special-purpose addresses. They are written out because
`ipaddress.is_global` differs between patch releases of Python and knows no cloud metadata services.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# The first network that contains an address decides its kind.
_IPV4_KINDS: Final = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "an unspecified"),
        ("10.0.0.0/8", "a private"),
        ("100.64.0.0/10", "a carrier-grade NAT"),  # contains Alibaba's metadata service, 100.100.100.200
        ("127.0.0.0/8", "a loopback"),
        ("168.63.129.16/32", "a cloud metadata"),  # Azure; the only one in public address space
        ("169.254.0.0/16", "a link-local"),  # contains the metadata service of most clouds, 169.254.169.254
        ("172.16.0.0/12", "a private"),
        ("192.0.0.0/24", "a reserved"),  # contains Oracle's metadata service, 192.0.0.192
        ("192.0.2.0/24", "a reserved"),
        ("192.88.99.0/24", "a reserved"),
        ("192.168.0.0/16", "a private"),
        ("198.18.0.0/15", "a reserved"),
        ("198.51.100.0/24", "a reserved"),
        ("203.0.113.0/24", "a reserved"),
        ("224.0.0.0/4", "a multicast"),
        ("240.0.0.0/4", "a reserved"),
    )
)
_IPV6_KINDS: Final = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "an unspecified"),
        ("::1/128", "a loopback"),
        ("fc00::/7", "a private"),  # unique local; contains AWS's metadata service, fd00:ec2::254
        ("fe80::/10", "a link-local"),
        ("fec0::/10", "a private"),  # site-local, deprecated
        ("ff00::/8", "a multicast"),
        # Teredo and 6to4 contain IPv4 addresses. Both are obsolete, so no exception is made for public ones.
        ("2001::/23", "a reserved"),
        ("2001:db8::/32", "a reserved"),
        ("2002::/16", "a reserved"),
        ("3fff::/20", "a reserved"),
    )
)
_IPV6_UNICAST: Final = IPv6Network("2000::/3")  # everything outside it is reserved
_NAT64: Final = IPv6Network("64:ff9b::/96")  # networks without IPv4 reach public IPv4 addresses through it


def kind_of(address: Address) -> str | None:
    """Return the kind of a special address, such as "a private"; None for an address of the internet."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _IPV4_KINDS if address in network), None)
    if address in _NAT64:
        return kind_of(IPv4Address(int(address) & 0xFFFFFFFF))
    for network, kind in _IPV6_KINDS:
        if address in network:
            return kind
    return None if address in _IPV6_UNICAST else "a reserved"


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address (::ffff:192.0.2.1), any other unchanged."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
