"""API keys: their text, their records, and who is let in where none are."""

import json
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest

from api.exposure import is_from_elsewhere, is_loopback
from shared.identity.keys import digest_of, id_in, issue
from shared.identity.roles import Role


def test_text_is_recognised_and_not_kept() -> None:
    key, text = issue("ann", Role.SUBMITTER)
    assert text.startswith(f"lc_{key.id}_")
    assert id_in(text) == key.id
    assert key.matches(text)
    assert text.rpartition("_")[2] not in key.model_dump_json()
    assert issue("ann", Role.SUBMITTER)[1] != text


def test_text_that_differs_anywhere_is_another() -> None:
    key, text = issue("ann", Role.SUBMITTER)
    for place in range(len("lc_"), len(text)):
        other = text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]
        assert not key.matches(other)
    assert not key.matches("")
    assert not key.matches("schlüssel")


def test_texts_are_compared_in_constant_time() -> None:
    key, text = issue("ann", Role.SUBMITTER)
    with mock.patch("hmac.compare_digest", return_value=False) as compare:
        assert not key.matches(text)
    compare.assert_called_once_with(digest_of(text), key.digest)


@pytest.mark.parametrize(
    "text", ["", "lc_", "lc_0_0", "sk-0000", "lc_" + "0" * 77, "LC_000000000000_" + "0" * 64]
)
def test_what_has_not_the_form_of_a_key_names_none(text: str) -> None:
    assert id_in(text) is None


def test_key_is_refused_from_its_expiry_on() -> None:
    now = datetime.now(UTC)
    assert issue("ann", Role.VIEWER)[0].refusal() is None
    assert issue("ann", Role.VIEWER, now + timedelta(minutes=1))[0].refusal() is None
    assert issue("ann", Role.VIEWER, now)[0].refusal() == "has expired"
    revoked = issue("ann", Role.VIEWER)[0].model_copy(update={"revoked_at": now})
    assert revoked.refusal() == "was revoked"


def test_record_of_an_older_version_is_read() -> None:
    key, _ = issue("ann", Role.VIEWER)
    fields = json.loads(key.model_dump_json())
    record = {name: value for name, value in fields.items() if value is not None} | {"more": 1}
    assert type(key).model_validate(record) == key


def test_each_role_may_do_what_those_before_it_may() -> None:
    for role in Role:
        assert [other for other in Role if role.covers(other)] == list(Role)[
            : list(Role).index(role) + 1
        ]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - nothing is bound
        ("::", False),
        ("192.168.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("", False),
        ("api.example", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("method", "headers", "elsewhere"),
    [
        ("GET", {"host": "127.0.0.1:8009"}, False),
        ("GET", {"host": "[::1]:8009"}, False),
        ("POST", {"host": "localhost:8009", "sec-fetch-site": "same-origin"}, False),
        ("POST", {"host": "lifecycle.localhost"}, False),
        ("POST", {"host": "api:8009"}, False),
        ("POST", {}, False),
        # A link on somebody's page may be followed; its forms may not be sent.
        ("GET", {"host": "localhost:8009", "sec-fetch-site": "cross-site"}, False),
        ("POST", {"host": "localhost:8009", "sec-fetch-site": "cross-site"}, True),
        # A name that was rebound to this machine.
        ("GET", {"host": "evil.example:8009", "sec-fetch-site": "same-origin"}, True),
        ("GET", {"host": "localhost.evil.example"}, True),
        ("GET", {"host": "[oops"}, True),
    ],
)
def test_pages_of_others_are_told_by_their_headers(
    method: str, headers: dict[str, str], elsewhere: bool
) -> None:
    assert is_from_elsewhere(method, headers) is elsewhere
