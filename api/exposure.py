"""Where the front may be open to whoever calls: on this machine, or as the operator says."""

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import urlsplit

from shared.errors import UnavailableError
from shared.identity.store import KeyStore
from shared.settings import ApiSettings

_MENDING = """\
Do one of these:
  lifecycle keys create --name me --role admin    make a key (needs Redis only, not the front)
  API_ADMIN_KEY=<at least 16 characters>          bring an admin's key along
  API_HOST=127.0.0.1                              serve this machine only
  API_ALLOW_OPEN=true                             let whoever can connect do everything"""


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached from this machine only."""
    address = _address(host)
    return address.is_loopback if address else host == "localhost"


def reason_not_to_serve(settings: ApiSettings, keys: KeyStore) -> str | None:
    """Return why a front must not start: it would be beyond loopback, and nobody have a key."""
    if is_loopback(settings.host) or settings.allow_open:
        return None
    if settings.admin_key or settings.require_keys:
        return None
    try:
        if keys.exist():
            return None
        found = "there are no API keys"
    except UnavailableError as error:
        found = f"whether there are API keys cannot be told ({error.detail})"
    return f"Not serving on {settings.host}, which is beyond loopback: {found}.\n{_MENDING}"


def is_from_elsewhere(method: str, headers: Mapping[str, str]) -> bool:
    """Return whether a call to an open front comes from a web page of somebody else.

    A page may send forms to this machine, and one whose name was rebound to a loopback address
    may do all that its own script can; both are told by what the browser adds.
    """
    sent_by_a_page = method != "GET" and headers.get("sec-fetch-site") == "cross-site"
    return sent_by_a_page or _is_public_name(headers.get("host", ""))


@lru_cache(64)
def _is_public_name(host: str) -> bool:
    """Return whether a Host header holds a name that anybody could have registered."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True
    # A name without a dot is of the local network or of /etc/hosts.
    return "." in name and not name.endswith(".localhost") and _address(name) is None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
