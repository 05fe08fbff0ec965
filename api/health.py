"""Whether the front of this machine takes jobs, as seen from outside of it."""

import sys

import httpx

from shared.settings import ApiSettings

_TIMEOUT_SECONDS = 5.0
#: Who listens on every address is asked on the loopback one.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def health(settings: ApiSettings) -> int:
    """Ask the front whether it is ready and print one line; return 0 if it is, else 1."""
    host = _LOOPBACK.get(settings.host, settings.host)
    url = httpx.URL(scheme="http", host=host, port=settings.port, path="/health/ready")
    try:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            answer = client.get(url)
    except httpx.HTTPError as error:
        return _say(f"{url}: {error or type(error).__name__}", 1)
    return _say(f"{url}: {answer.status_code} {answer.text}", 0 if answer.is_success else 1)


def _say(line: str, status: int) -> int:
    sys.stdout.write(line + "\n")
    return status
