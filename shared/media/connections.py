"""Connections that can only be made to checked addresses, and that end when their time is up."""

import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from shared.cancellation import CancelToken
from shared.media.addresses import AddressPolicy


class Allowance:
    """What a fetch may still take, asked at each read and write of its connections."""

    def __init__(self, seconds: float, token: CancelToken | None = None) -> None:
        self._ends_at = time.monotonic() + seconds
        self._token = token

    def seconds(self, wanted: float | None) -> float:
        """Return how long the next step may take; raise if the fetch must stop."""
        if self._token is not None:
            self._token.check()
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole fetch is over")
        return left if wanted is None else min(left, wanted)


class CheckedBackend(httpcore.NetworkBackend):
    """Resolves a host, checks its addresses and connects to one of those, in one step.

    TLS, made on top of such a connection, still verifies the host's name.
    """

    def __init__(self, policy: AddressPolicy, allowance: Allowance, field: str) -> None:
        self._policy = policy
        self._allowance = allowance
        self._field = field
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers."""
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._policy.addresses(host, port, self._field):
            try:
                stream = self._plain.connect_tcp(
                    address, port, self._allowance.seconds(timeout), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _LimitedStream(stream, self._allowance)
        raise failure


class _LimitedStream(httpcore.NetworkStream):
    """A stream whose every step is paid from the allowance, so that no drip goes on for ever."""

    def __init__(self, stream: httpcore.NetworkStream, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._allowance.seconds(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._allowance.seconds(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._allowance.seconds(timeout)
        return _LimitedStream(
            self._stream.start_tls(ssl_context, server_hostname, seconds), self._allowance
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
