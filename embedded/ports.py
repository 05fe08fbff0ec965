"""Ports of this machine for the parts of the stack."""

import errno
import socket
from itertools import chain, repeat

_LOOPBACK = "127.0.0.1"
_TRIES = 100


class Ports:
    """Gives each part the port it wants, or a free one; never the same to two."""

    def __init__(self, *, any_free: bool = False) -> None:
        self._any_free = any_free
        self._given: set[int] = set()
        #: Ports that were wanted but taken, and what was given for each.
        self.replaced: dict[int, int] = {}

    def take(self, wanted: int, host: str = _LOOPBACK) -> int:
        """Return the wanted port, or another if it is taken."""
        first = 0 if self._any_free else wanted
        for candidate in chain([first], repeat(0, _TRIES)):
            port = _bindable(host, candidate)
            if port is not None and port not in self._given:
                self._given.add(port)
                if candidate != first:
                    self.replaced[wanted] = port
                return port
        raise OSError(errno.EADDRNOTAVAIL, f"no port of {host} can be listened on")


def _bindable(host: str, port: int) -> int | None:
    """Return the port (for 0, some free one) if a server could listen on it now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a connection that lingers from the last run takes no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
