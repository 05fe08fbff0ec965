"""Faults, counters, ranges and links, without a server."""

import pytest
from pydantic import ValidationError

from embedded.hub.errors import LinkRefusedError, RangeError
from embedded.hub.faults import Fault, FaultKind, FaultPlan
from embedded.hub.links import LINK_SECONDS, LinkSigner
from embedded.hub.ranges import parse_range
from embedded.hub.stats import Stats
from embedded.hub.transfer import Manner


def test_a_fault_touches_as_many_matching_requests_as_asked() -> None:
    plan = FaultPlan()
    fault = Fault(kind=FaultKind.STATUS, path="/api/*", method="GET", skip=1, times=2)
    plan.replace([fault])
    assert plan.take("GET", "/other", of_body=False) == []
    assert plan.take("HEAD", "/api/x", of_body=False) == []
    assert plan.take("GET", "/api/x", of_body=True) == []
    taken = [plan.take("GET", "/api/x", of_body=False) for _ in range(4)]
    assert taken == [[], [fault], [fault], []]


def test_a_fault_without_a_number_never_ends_until_replaced() -> None:
    plan = FaultPlan()
    plan.replace([Fault(kind=FaultKind.CORRUPT)])
    assert all(plan.take("GET", "/x", of_body=True) for _ in range(100))
    plan.replace([])
    assert plan.take("GET", "/x", of_body=True) == []


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "cut"},
        {"kind": "throttle"},
        {"kind": "resize"},
        {"kind": "status", "status": 200},
        {"kind": "status", "times": 0},
        {"kind": "corrupt", "unknown": 1},
        {"kind": "nonsense"},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(values)


def test_faults_of_a_body_add_up() -> None:
    manner = Manner.of(
        [
            Fault(kind=FaultKind.CUT, after_bytes=10),
            Fault(kind=FaultKind.THROTTLE, bytes_per_second=5),
            Fault(kind=FaultKind.HANG, after_bytes=7),
            Fault(kind=FaultKind.CORRUPT),
        ]
    )
    assert manner == Manner(stop_after=10, hang_after=7, bytes_per_second=5, corrupt=True)
    assert manner.limit == 7


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", range(10)),
        ("bytes=3-5", range(3, 6)),
        ("bytes=3-99", range(3, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-99", range(10)),
        ("bytes=5-3", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=-", None),
    ],
)
def test_a_range_is_read_or_ignored(header: str | None, expected: range | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_past_the_end_is_refused(header: str) -> None:
    with pytest.raises(RangeError) as refused:
        parse_range(header, 10)
    assert refused.value.headers == {"Content-Range": "bytes */10"}


def test_counters_add_up_by_file_and_by_path() -> None:
    stats = Stats()
    stats.count_request("GET", "/x")
    stats.count_request("GET", "/x")
    stats.begin_transfer("m/x", None)
    stats.add_sent("m/x", 3)
    stats.begin_transfer("m/x", "bytes=3-")
    stats.add_sent("m/x", 4)
    assert stats.snapshot() == {
        "requests": 2,
        "bytes_sent": 7,
        "paths": {"GET /x": 2},
        "files": {"m/x": {"transfers": 2, "bytes_sent": 7, "ranges": [None, "bytes=3-"]}},
    }
    stats.reset()
    assert stats.snapshot() == {"requests": 0, "bytes_sent": 0, "paths": {}, "files": {}}


def test_a_link_is_good_for_its_path_and_for_a_while() -> None:
    now = 1000.0
    signer = LinkSigner(clock=lambda: now)
    _, _, query = signer.sign("/cdn/a b").partition("?")
    fields = dict(field.split("=") for field in query.split("&"))
    signer.verify("/cdn/a b", fields)
    for path, values in (("/cdn/other", fields), ("/cdn/a b", fields | {"Expires": "9"}), ("", {})):
        with pytest.raises(LinkRefusedError):
            signer.verify(path, values)
    now += LINK_SECONDS + 1
    with pytest.raises(LinkRefusedError):
        signer.verify("/cdn/a b", fields)
