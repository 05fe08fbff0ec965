"""Logs: one shape, and no credential in any line."""

import json
import subprocess
import sys
import textwrap

import pytest

from shared.redaction import keep_secret, redacted
from shared.settings import LogSettings

SECRET = "CanaryCanaryCanary0123"


@pytest.mark.parametrize(
    "text",
    [
        f"redis://:{SECRET}@10.0.0.5:6379/0",
        f"redis://user:{SECRET}@host/0 does not answer",
        f"https://{SECRET}@hub.example/model",
        f"https://u:{SECRET}@host",
        f"https://s3/b/k?X-Amz-Credential={SECRET}&X-Amz-Expires=900",
        f"https://s3/b/k?X-Amz-Expires=900&X-Amz-Signature={SECRET}",
        f"https://blob/k?sv=1&sig={SECRET}",
        f"https://host/?access_token={SECRET}#x",
        f"headers: Authorization: Bearer {SECRET}",
        f"Authorization: Basic {SECRET}==",
        f"hf_{SECRET}",
        f"lc_0123456789ab_{SECRET}",
    ],
)
def test_credential_is_taken_out_of_a_text(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "redis://10.0.0.5:6379/0",
        "https://host/path?limit=5&cursor=abc",
        "cpu@host",
        "job started",
        "GET https://host/a and mail me@host",
        "a basic model, a bearer of news",
    ],
)
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_a_secret_of_the_settings_is_known_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.redaction._known", ())
    keep_secret("a+very/plain word")
    keep_secret("short")
    assert redacted("no a+very/plain word, no a%2Bvery%2Fplain%20word") == "no ***, no ***"
    assert redacted("short") == "short"


def test_no_place_in_a_line_keeps_a_credential() -> None:
    lines = _lines(
        f"""
        url = "redis://:{SECRET}@host/0"
        structlog.get_logger().info(url, address=url, nested={{"urls": [url]}})
        logging.getLogger("library").warning("connecting to %s", url)
        structlog.get_logger().error("not reached", exc_info=ConnectionError(url))
        """
    )
    assert len(lines) == 3
    for line in lines:
        assert "redis://***@host/0" in line
        assert SECRET not in line
        json.loads(line)


def test_bound_ids_are_in_every_line() -> None:
    lines = _lines(
        """
        structlog.contextvars.bind_contextvars(job_id="j", request_id="r")
        structlog.get_logger().info("ours")
        logging.getLogger("library").warning("theirs")
        """
    )
    read = [json.loads(line) for line in lines]
    assert [(line["event"], line["job_id"], line["request_id"]) for line in read] == [
        ("ours", "j", "r"),
        ("theirs", "j", "r"),
    ]


def test_lines_below_the_level_are_left_out() -> None:
    lines = _lines(
        """
        configure_logs("warning")
        structlog.get_logger().info("ours")
        logging.getLogger("library").info("theirs")
        structlog.get_logger().warning("ours")
        logging.getLogger("library").warning("theirs")
        """
    )
    assert [json.loads(line)["level"] for line in lines] == ["warning", "warning"]


def test_the_level_is_a_setting_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    assert LogSettings().level == "warning"


def _lines(code: str) -> list[str]:
    """Return what a process of its own logs, as it does without a terminal."""
    start = "import logging, structlog; from shared.logs import configure_logs; configure_logs()"
    run = subprocess.run(
        [sys.executable, "-c", f"{start}\n{textwrap.dedent(code)}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stderr.splitlines()
