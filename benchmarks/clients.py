"""Clients that each wait for an answer before they send again: a closed loop.

``python -m benchmarks.clients URL CLIENTS SECONDS BODY EXPECTED`` prints what they saw as JSON.
It is a process of its own, and reads answers with uvloop and httptools: on the machine that it
shares with the server it takes little of the time.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httptools
import uvloop

#: Answers in this time at the beginning are not counted.
WARM_UP_SECONDS = 0.3
#: Time for answers that are still on their way at the end, and for Python to start.
GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """What the clients saw after the warm-up."""

    per_second: float
    p50_seconds: float
    p99_seconds: float
    #: Answers by status, from the beginning.
    statuses: dict[str, int]
    #: Answers that do not contain what was expected.
    wrong: int
    #: The share of one core that the clients themselves used.
    cpu: float

    @classmethod
    def of(cls, text: str | bytes) -> Self:
        """Read what the process printed."""
        return cls(**json.loads(text))


def closed_loop(
    url: str, clients: int, seconds: float, body: dict[str, Any], expected: str
) -> Seen:
    """Run the clients as a process of their own, and return what they saw."""
    arguments = [url, str(clients), str(seconds), json.dumps(body), expected]
    command = [sys.executable, "-m", "benchmarks.clients", *arguments]
    limit = seconds + GRACE_SECONDS
    return Seen.of(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit).stdout
    )


class _Record:
    def __init__(self, seconds: float, expected: bytes) -> None:
        self.begins = time.perf_counter() + WARM_UP_SECONDS
        self.ends = self.begins + seconds
        self.expected = expected
        self.latencies: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.wrong = 0

    def add(self, sent: float, status: int, content: bytes) -> bool:
        """Count an answer; return whether to send again."""
        now = time.perf_counter()
        self.statuses[str(status)] += 1
        self.wrong += self.expected not in content
        if self.begins <= now < self.ends:
            self.latencies.append(now - sent)
        return now < self.ends


class _Client(asyncio.Protocol):
    """One connection; it sends the next request when the answer is complete."""

    def __init__(self, request: bytes, record: _Record) -> None:
        self._request, self._record = request, record
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_exception(exc or ConnectionError("the server closed the connection"))

    def on_body(self, part: bytes) -> None:
        self._content += part

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._record.add(self._sent, status, self._content):
            self._send()
        else:
            self.closed.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        # A parser for each answer: it is made in a microsecond, and reuse depends on Keep-Alive.
        self._parser = httptools.HttpResponseParser(self)
        self._content, self._sent = b"", time.perf_counter()
        self._transport.write(self._request)


async def _run(url: str, clients: int, seconds: float, body: bytes, expected: bytes) -> Seen:
    record, request = _Record(seconds, expected), post(url, body)
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    used = time.process_time()
    connections = [
        await loop.create_connection(lambda: _Client(request, record), host, port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.closed for _, client in connections))
    latencies = sorted(record.latencies)
    if not latencies:
        raise RuntimeError(f"{url} gave no answer in time; in all: {record.statuses}")
    return Seen(
        per_second=len(latencies) / seconds,
        p50_seconds=statistics.median(latencies),
        p99_seconds=latencies[len(latencies) * 99 // 100],
        statuses=dict(record.statuses),
        wrong=record.wrong,
        cpu=(time.process_time() - used) / (time.perf_counter() - record.begins + WARM_UP_SECONDS),
    )


def post(url: str, body: bytes) -> bytes:
    """Return a request that posts JSON, to be sent in one write."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def main(arguments: Sequence[str]) -> None:
    """Run the clients, and print what they saw."""
    url, clients, seconds, body, expected = arguments
    run = _run(url, int(clients), float(seconds), body.encode(), expected.encode())
    print(json.dumps(vars(uvloop.run(run))))


if __name__ == "__main__":
    main(sys.argv[1:])
