"""A load generator as a process of its own: ``python -m benchmarks.load URL RATE SECONDS BODY``.

An open loop: it sends at its rate, whatever the answers do. It prints what it saw as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

#: A call that found this many before it is not sent: the front is not to be measured by our queue.
MOST_IN_FLIGHT = 200
ANSWER_SECONDS = 30.0


@dataclass
class Seen:
    """What clients saw."""

    #: Answers by status, and calls without one.
    answers: Counter[str] = field(default_factory=Counter)
    #: Jobs that were accepted.
    accepted: list[str] = field(default_factory=list)

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.answers + other.answers, self.accepted + other.accepted)

    @classmethod
    def of(cls, text: str | bytes) -> Self:
        """Read what a process printed."""
        fields = json.loads(text)
        return cls(Counter(fields["answers"]), fields["accepted"])


class Load:
    """Several generators, that share a rate."""

    def __init__(
        self, url: str, rate: float, seconds: float, body: dict[str, Any], processes: int = 2
    ) -> None:
        arguments = [url, str(rate / processes), str(seconds), json.dumps(body)]
        command = [sys.executable, "-m", "benchmarks.load", *arguments]
        # In threads, which read all the while: nobody else does before the end.
        self._threads = ThreadPoolExecutor(processes)
        self._ends = [self._threads.submit(_run, command) for _ in range(processes)]

    def running(self) -> bool:
        """Return whether any of them still sends."""
        return not all(end.done() for end in self._ends)

    def seen(self) -> Seen:
        """Wait for the end, and return what all of them saw."""
        self._threads.shutdown()
        return sum((end.result() for end in self._ends), Seen())


def _run(command: Sequence[str]) -> Seen:
    return Seen.of(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


async def generate(url: str, rate: float, seconds: float, body: dict[str, Any]) -> Seen:
    """Send at a rate for a while."""
    seen, calls = Seen(), set[asyncio.Task[None]]()
    async with ClientSession(
        url,
        connector=TCPConnector(limit=MOST_IN_FLIGHT),
        timeout=ClientTimeout(ANSWER_SECONDS),
    ) as client:
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if time.monotonic() - began > seconds:
                break
            if len(calls) < MOST_IN_FLIGHT:
                call = asyncio.create_task(_submit(client, body, seen))
                calls.add(call)
                call.add_done_callback(calls.discard)
            else:
                seen.answers["not sent"] += 1
        await asyncio.gather(*calls)
    return seen


async def _submit(client: ClientSession, body: dict[str, Any], seen: Seen) -> None:
    try:
        async with client.post("/inference/infer", json=body) as response:
            answer = await response.json(content_type=None)
    except (ClientError, TimeoutError) as error:
        seen.answers[type(error).__name__] += 1
        return
    seen.answers[str(response.status)] += 1
    if response.status in {200, 202}:
        seen.accepted.append(answer["job_id"])


def main(arguments: Sequence[str]) -> None:
    """Generate, and print what was seen."""
    url, rate, seconds, body = arguments
    seen = asyncio.run(generate(url, float(rate), float(seconds), json.loads(body)))
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    main(sys.argv[1:])
