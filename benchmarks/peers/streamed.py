"""The platform's share of the time to the first streamed text."""

import http.client
import json
import socket
import statistics
import time

from benchmarks.clients import post
from benchmarks.serving import Serving
from shared.cancellation import CancelToken
from tests.chaos.misbehaviour import Deed

#: The engine waits for this time before its first text.
ENGINE_SECONDS = 0.02
SAMPLES = 200


def first_text_seconds(serving: Serving, samples: int = SAMPLES) -> float:
    """Return the median time from the request to its first text, less the engine's time."""
    url = serving.platform.http.base_url
    body = serving.question(Deed.WORK, seconds=ENGINE_SECONDS) | {"stream": True}
    call = post(f"{url}/inference/infer?wait=0", json.dumps(body).encode())
    # Two connections that stay open, of a client that costs little.
    calls = socket.create_connection((url.host, url.port or 80), timeout=60)
    follows = http.client.HTTPConnection(url.host, url.port or 80, timeout=60)
    try:
        seconds = [_first_text(calls, follows, call) for _ in range(samples)]
    finally:
        calls.close()
        follows.close()
    return statistics.median(seconds) - _engine_seconds(samples)


def _engine_seconds(samples: int) -> float:
    """Return what the engine's wait takes here; an idle machine ends it late."""
    seconds = []
    for _ in range(samples):
        started = time.perf_counter()
        CancelToken().wait(ENGINE_SECONDS)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _first_text(calls: socket.socket, follows: http.client.HTTPConnection, call: bytes) -> float:
    started = time.perf_counter()
    calls.sendall(call)
    with http.client.HTTPResponse(calls, method="POST") as submitted:
        submitted.begin()
        job = json.loads(submitted.read())
    follows.request("GET", job["links"]["events"])
    with follows.getresponse() as events:
        seconds, text = 0.0, False
        # To the end, so that the connection can be used again.
        for line in events:
            if not seconds:
                text = text or line.startswith(b"event: token")
                if text and line.startswith(b"data:"):
                    seconds = time.perf_counter() - started
        if not seconds:
            raise AssertionError(f"the job {job['job_id']} streamed no text")
    return seconds
