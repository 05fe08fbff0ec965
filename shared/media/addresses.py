"""Which addresses media may be fetched from: public ones, unless the operator names the host."""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from shared.media.errors import not_found, url_refused, url_unavailable

#: Takes a host and a port, returns the addresses that the host has; raises ``socket.gaierror``.
Resolver = Callable[[str, int], list[str]]

Address = IPv4Address | IPv6Address

#: Global in the words of some Python, and for us not public.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # special purposes; Oracle's metadata service is among them
            "168.63.129.16/32",  # Azure's own services for its machines
            "64:ff9b:1::/48",  # NAT64 of a local network
            "::ffff:0:0:0/96",  # SIIT: IPv4 addresses, translated
            "3fff::/20",  # documentation
            "5f00::/16",  # segment routing
        ),
    )
)


def resolve(host: str, port: int) -> list[str]:
    """Ask the system which addresses a host has."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressPolicy:
    """Resolves hosts to addresses that may be connected to.

    Who connects must connect to the addresses returned here: resolving the name again could give
    others (DNS rebinding).
    """

    def __init__(self, private_hosts: Sequence[str] = (), resolver: Resolver = resolve) -> None:
        self._private_hosts = frozenset(host.lower() for host in private_hosts)
        self._resolver = resolver

    def addresses(self, host: str, port: int, field: str) -> list[str]:
        """Return a host's addresses, all of them checked."""
        try:
            found = self._resolver(host, port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise url_unavailable(f"{host} cannot be resolved now", field) from None
            raise not_found(f"there is no host {host}", field) from None
        except UnicodeError:
            raise url_refused(f"{host!r} is not a host's name", field) from None
        trusted = {host.lower(), f"{host.lower()}:{port}"} & self._private_hosts
        if not trusted and not all(is_public(ip_address(address)) for address in found):
            # Not which address: that would tell strangers about the network inside.
            raise url_refused(f"{host} is not at a public address", field)
        return found


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    IPv6 addresses that gateways turn into IPv4 ones do not: mapped ones, those of NAT64 (both
    reserved in Python's words) and of 6to4.
    """
    if isinstance(address, IPv6Address) and (address.is_site_local or address.sixtofour):
        return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
