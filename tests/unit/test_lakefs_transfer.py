"""Range headers, and signed addresses."""

import pytest

from embedded.lakefs.errors import ForbiddenError, InvalidError, RangeError
from embedded.lakefs.model import Place
from embedded.lakefs.presigning import ADDRESS_SECONDS, LINK_SECONDS, Signer
from embedded.lakefs.transfer import byte_range
from tests.clock import Clock

PLACE = Place("repository", "main", "a/b")


@pytest.mark.parametrize(
    ("header", "served"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=2-4", range(2, 5)),
        ("bytes=8-99", range(8, 10)),
        ("bytes=7-", range(7, 10)),
        ("bytes=-3", range(7, 10)),
        ("bytes=-99", range(10)),
    ],
)
def test_a_range_is_read(header: str, served: range) -> None:
    assert byte_range(header, 10) == served


@pytest.mark.parametrize(
    "header",
    ["bytes=10-", "bytes=-0", "bytes=4-2", "bytes=-", "bytes=1-2,4-5", "bytes=x-", "chars=1-2", ""],
)
def test_a_range_without_bytes_is_refused(header: str) -> None:
    with pytest.raises(RangeError) as failure:
        byte_range(header, 10)
    assert failure.value.headers == {"Content-Range": "bytes */10"}


def test_an_address_is_for_one_object_and_one_day() -> None:
    clock = Clock(1_700_000_000.0)
    signer = Signer("secret", clock)
    address = signer.address("upload", PLACE)
    assert signer.check_address(address, PLACE) == "upload"
    for stranger, place in ((signer, Place("repository", "main", "a")), (Signer("other"), PLACE)):
        with pytest.raises(InvalidError, match="signature"):
            stranger.check_address(address, place)
    clock.now += ADDRESS_SECONDS + 1
    with pytest.raises(InvalidError, match="expired"):
        signer.check_address(address, PLACE)


def test_a_link_is_for_one_method_and_some_minutes() -> None:
    clock = Clock(1_700_000_000.0)
    signer = Signer("secret", clock)
    link = signer.link("http://here", "GET", "/blob")
    signature = link.url.rpartition("=")[-1]
    signer.check_link("GET", "/blob", link.expires, signature)
    with pytest.raises(ForbiddenError):
        signer.check_link("PUT", "/blob", link.expires, signature)
    clock.now += LINK_SECONDS + 1
    with pytest.raises(ForbiddenError):
        signer.check_link("GET", "/blob", link.expires, signature)
