"""Which addresses are the internet's: what is private, of this machine, or of a cloud's inside, is not.

Judged on the address that is connected to, never on how somebody wrote it.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)

_NOT_PUBLIC_4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
        "168.63.129.16/32",  # the inside of Azure, under an address that looks public
    )
)  # fmt: skip
"""IANA's special-purpose addresses, multicast and what is reserved: of each Python release the same ones."""

_PUBLIC_6 = IPv6Network("2000::/3")
"""All that was ever given out; in it, what is not of the internet, or only wraps an IPv4 address."""
_NOT_PUBLIC_6 = tuple(
    IPv6Network(each)
    for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16")
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address (as numbers) is one of the internet.

    >>> [is_public(each) for each in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822")]
    [True, True, True]
    >>> [is_public(each) for each in ("127.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "169.254.169.254")]
    [False, False, False, False]
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        wrapped = _wrapped(found)
        if wrapped is None:
            return found in _PUBLIC_6 and not any(found in each for each in _NOT_PUBLIC_6)
        found = wrapped
    return not any(found in each for each in _NOT_PUBLIC_4)


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a packet to this one would go to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
