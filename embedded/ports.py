"""Ports of this machine for the parts of the stack."""

import socket


class Ports:
    """Gives each part the port it wants, or a free one; never the same to two."""

    def __init__(self, *, any_free: bool = False) -> None:
        self._any_free = any_free
        self._given: set[int] = set()

    def take(self, wanted: int, host: str = "127.0.0.1") -> int:
        """Return the wanted port, or another if it is taken."""
        port = 0 if self._any_free else wanted
        while port in self._given or not (found := _bindable(host, port)):
            port = 0
        self._given.add(found)
        return found


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
