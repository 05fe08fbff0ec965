"""Messages in Celery's queue that the ledger has not put there only wake a slot of the worker."""

import json
import pickle
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.jobs import JobState
from shared.ledger.schema import celery_queue
from shared.queue import DOWNLOADS
from shared.settings import LedgerSettings, RedisSettings
from tests.integration.workplace import Workplace
from tests.processes import wait_until


class Exploit:
    """Touches a file wherever it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def message(
    body: bytes,
    *,
    content_type: str = "application/json",
    task: object = "models.download",
    **headers: object,
) -> bytes:
    """Return what a client of Celery would put into Redis."""
    job_id = str(uuid.uuid4())
    envelope = {
        "body": b64encode(body).decode(),
        "content-encoding": "binary" if "python" in content_type else "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": job_id, "root_id": job_id, **headers},
        "properties": {
            "correlation_id": job_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": DOWNLOADS},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": job_id,
        },
    }
    return json.dumps(envelope).encode()


def arguments(*args: object, **kwargs: object) -> bytes:
    return json.dumps([args, kwargs, {"callbacks": None, "errbacks": None}]).encode()


def attacks(mark: Path) -> dict[str, bytes]:
    """Return messages by what is wrong with them."""
    exploit = pickle.dumps([(Exploit(mark),), {}, {}])
    yaml = f"!!python/object/apply:pathlib.Path.touch [{mark}]".encode()
    task = {"task": "builtins.exec", "args": [f"open({str(mark)!r}, 'w')"], "kwargs": {}}
    chained = json.dumps([["x"], {}, {"callbacks": [task], "errbacks": [task], "chain": [task]}])
    return {
        "pickle": message(exploit, content_type="application/x-python-serialize"),
        "pickle, said to be JSON": message(exploit),
        "pickle by another name": message(exploit, content_type="pickle"),
        "YAML": message(yaml, content_type="application/x-yaml"),
        "no such serializer": message(b"x", content_type="application/x-none"),
        "a function as task": message(arguments("true"), task="os.system"),
        "a built-in task": message(arguments("x"), task="celery.backend_cleanup"),
        "an object as task": message(arguments("x"), task={}),
        "no name of a task": message(arguments("x"), task=None),
        "a list as task": message(arguments("x"), task=["models.download"]),
        "no arguments": message(arguments()),
        "more arguments": message(arguments("a", "b", c=1)),
        "an object as id": message(arguments({"$ne": None})),
        "an id that is none": message(arguments("../../x\r\n\0*")),
        "a long id": message(arguments("x" * 1_000_000)),
        "further tasks": message(chained.encode()),
        "a far time": message(arguments("x"), eta="9999-12-31T23:59:59", expires="x"),
        "limits": message(arguments("x"), timelimit=["a", "b"], retries="x", group=[]),
        "no body": message(b""),
        "JSON of another kind": message(b'"x"'),
        "nested": message(b"[" * 100_000),
    }


@pytest.fixture
def place(
    redis_settings: RedisSettings, ledger_settings: LedgerSettings, tmp_path: Path
) -> Iterator[Workplace]:
    place = Workplace(redis_settings, ledger_settings, tmp_path)
    yield place
    place.close()


def test_a_worker_runs_nothing_that_strangers_put_into_its_queue(
    place: Workplace, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    queue = celery_queue(place.settings, DOWNLOADS)
    place.start()
    assert place.worker
    process = place.worker.pid
    for name, attack in attacks(mark).items():
        place.client.lpush(queue, attack)
        [job] = place.ended(place.submit("m"))
        assert job.state is JobState.SUCCEEDED, name
        assert not mark.exists(), f"{name}: it was run"
        assert place.worker.pid == process, f"{name}: the worker died"
    wait_until(lambda: place.client.llen(queue) == 0, what="the queue is empty")


@pytest.mark.parametrize("garbage", [b"garbage", b"[]", b'{"body": 1, "headers": 2}', b"\xff\xfe"])
def test_garbage_in_the_queue_only_wakes_a_slot(place: Workplace, garbage: bytes) -> None:
    queue = celery_queue(place.settings, DOWNLOADS)
    place.start()
    worker = place.worker
    place.client.lpush(queue, garbage)
    jobs = place.ended(*(place.submit(f"m{number}") for number in range(3)))
    assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 3
    wait_until(lambda: place.client.llen(queue) == 0, what="the queue is empty")
    assert place.worker is worker
