"""The faults that the embedded hub makes on request."""

from pathlib import Path

import httpx
import pytest
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE

from embedded.hub.faults import Fault, FaultKind
from embedded.hub.process import HubProcess
from embedded.hub.repository import publish
from tests.integration.hub_contract.target import MODEL, WEIGHTS, WEIGHTS_BYTES


def read(answer: httpx.Response, received: bytearray) -> None:
    for chunk in answer.iter_raw():
        received += chunk


def test_a_cut_transfer_can_be_resumed_without_a_byte_sent_twice(
    sound_hub: HubProcess, model_dir: Path
) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.CUT, path="/cdn/*", after_bytes=1_000_001, times=1))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    received = bytearray()
    with httpx.stream("GET", url, follow_redirects=True) as answer:
        assert answer.headers["Content-Length"] == str(WEIGHTS_BYTES)
        with pytest.raises(httpx.RemoteProtocolError):
            read(answer, received)
    assert len(received) == 1_000_001
    received += fetch(sound_hub, Range=f"bytes={len(received)}-").content
    assert received == (model_dir / WEIGHTS).read_bytes()
    assert sound_hub.stats()["files"][f"{MODEL}/{WEIGHTS}"] == {
        "transfers": 2,
        "bytes_sent": WEIGHTS_BYTES,
        "ranges": [None, "bytes=1000001-"],
    }


def test_the_real_client_resumes_where_its_last_chunk_ended(
    sound_hub: HubProcess, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    content = bytes(12_000_000)
    (tmp_path / "model" / WEIGHTS).write_bytes(content)
    publish(sound_hub.root, "acme/large", tmp_path / "model")
    sound_hub.set_faults(Fault(kind=FaultKind.CUT, path="/cdn/*", after_bytes=11_000_000, times=1))
    path = hf_hub_download(
        "acme/large", WEIGHTS, endpoint=sound_hub.url, cache_dir=tmp_path / "cache", token=False
    )
    assert Path(path).read_bytes() == content
    ranges = sound_hub.stats()["files"][f"acme/large/{WEIGHTS}"]["ranges"]
    assert ranges == [None, f"bytes={DOWNLOAD_CHUNK_SIZE}-"]


def test_a_status_is_answered_as_often_as_asked(sound_hub: HubProcess) -> None:
    fault = Fault(
        kind=FaultKind.STATUS, path="*/resolve/*", status=429, retry_after_seconds=7, times=2
    )
    sound_hub.set_faults(fault)
    url = f"{sound_hub.url}/{MODEL}/resolve/main/config.json"
    answers = [httpx.head(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert httpx.get(f"{sound_hub.url}/api/models/{MODEL}").status_code == 200


def fetch(hub: HubProcess, **headers: str) -> httpx.Response:
    url = f"{hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    return httpx.get(url, follow_redirects=True, headers=headers)


def test_a_corrupted_body_keeps_its_size(sound_hub: HubProcess, model_dir: Path) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.CORRUPT, path="*.safetensors", times=1))
    content = (model_dir / WEIGHTS).read_bytes()
    spoilt = fetch(sound_hub).content
    assert len(spoilt) == WEIGHTS_BYTES
    assert spoilt != content
    assert fetch(sound_hub).content == content


@pytest.mark.parametrize("extra_bytes", [10, -10])
def test_a_resized_body_says_its_wrong_size(
    sound_hub: HubProcess, tmp_path: Path, extra_bytes: int
) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.RESIZE, extra_bytes=extra_bytes))
    assert len(fetch(sound_hub).content) == WEIGHTS_BYTES + extra_bytes
    with pytest.raises(OSError, match="Consistency check failed"):
        hf_hub_download(MODEL, WEIGHTS, endpoint=sound_hub.url, cache_dir=tmp_path, token=False)


def test_a_range_can_be_ignored(sound_hub: HubProcess) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.IGNORE_RANGE, times=1))
    assert [fetch(sound_hub, Range="bytes=5-9").status_code for _ in range(2)] == [200, 206]


@pytest.mark.parametrize("after_bytes", [None, 0, 1000])
def test_a_hanging_hub_sends_nothing_more(sound_hub: HubProcess, after_bytes: int | None) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.HANG, path="/cdn/*", after_bytes=after_bytes))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    received = bytearray()
    with pytest.raises(httpx.ReadTimeout):
        stream_into(received, url)
    assert len(received) == (after_bytes or 0)


def stream_into(received: bytearray, url: str) -> None:
    with httpx.stream("GET", url, follow_redirects=True, timeout=0.3) as answer:
        read(answer, received)


def test_a_throttled_transfer_ends_with_the_client(sound_hub: HubProcess) -> None:
    sound_hub.set_faults(Fault(kind=FaultKind.THROTTLE, bytes_per_second=200_000))
    url = f"{sound_hub.url}/{MODEL}/resolve/main/{WEIGHTS}"
    with httpx.stream("GET", url, follow_redirects=True) as answer:
        received = len(next(answer.iter_raw()))
    counted = sound_hub.stats()["files"][f"{MODEL}/{WEIGHTS}"]
    assert 0 < received < WEIGHTS_BYTES
    assert counted["bytes_sent"] < WEIGHTS_BYTES


def test_a_fault_that_makes_no_sense_is_refused(sound_hub: HubProcess) -> None:
    answer = httpx.put(f"{sound_hub.url}/_faults", json={"faults": [{"kind": "cut"}]})
    assert answer.status_code == 422


def test_sigterm_ends_the_process_in_good_order_even_amid_a_transfer(
    tmp_path: Path, model_dir: Path
) -> None:
    publish(tmp_path, MODEL, model_dir)
    with HubProcess(tmp_path) as process:
        process.set_faults(Fault(kind=FaultKind.THROTTLE, bytes_per_second=1000))
        url = f"{process.url}/{MODEL}/resolve/main/{WEIGHTS}"
        with httpx.stream("GET", url, follow_redirects=True) as answer:
            assert next(answer.iter_raw())
            assert process.stop() == 0
