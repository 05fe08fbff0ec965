"""The heartbeat goes on until its end."""

import threading
from unittest.mock import create_autospec

from shared.ledger import Ledger
from workers.process.heartbeat import Heartbeat


def test_no_beat_comes_after_the_stop() -> None:
    beating, may_end, said = threading.Event(), threading.Event(), list[str]()

    def on_beat() -> None:
        beating.set()
        may_end.wait(60)
        said.append("announced")

    heartbeat = Heartbeat("cpu@a", create_autospec(Ledger), 0.001, on_beat)
    beats = threading.Thread(target=heartbeat.run)
    beats.start()
    assert beating.wait(60)

    def stop() -> None:
        heartbeat.stop()
        said.append("stopped")

    stops = threading.Thread(target=stop)
    stops.start()
    stops.join(0.1)
    may_end.set()
    stops.join(60)
    beats.join(60)
    assert said == ["announced", "stopped"]


def test_a_defect_does_not_end_it() -> None:
    again, beats = threading.Event(), list[int]()

    def on_beat() -> None:
        beats.append(1)
        if len(beats) > 1:
            again.set()
        raise ValueError

    heartbeat = Heartbeat("cpu@a", create_autospec(Ledger), 0.001, on_beat)
    thread = threading.Thread(target=heartbeat.run)
    thread.start()
    assert again.wait(60)
    heartbeat.stop()
    thread.join(60)
