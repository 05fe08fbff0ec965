"""Media on the web, fetched without lending our place in the network to strangers."""

import ssl
from functools import cache
from typing import BinaryIO

import httpcore
import httpx

from shared.cancellation import CancelToken
from shared.media.addresses import AddressPolicy
from shared.media.connections import Allowance, CheckedBackend
from shared.media.errors import (
    corrupt,
    not_found,
    too_large,
    url_failed,
    url_refused,
    url_unavailable,
)
from shared.media.references import UrlReference, parse_reference
from shared.settings import MediaSettings

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
#: Answers that another try may change.
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class WebMedia:
    """Fetches by http and https from checked addresses; every redirect is checked anew.

    No proxy of the environment is used: it would resolve names out of our sight.
    """

    def __init__(self, settings: MediaSettings, policy: AddressPolicy | None = None) -> None:
        self._settings = settings
        self._policy = policy or AddressPolicy(settings.url_private_hosts)

    def fetch(self, url: str, into: BinaryIO, field: str, token: CancelToken | None = None) -> None:
        """Write what a URL leads to into a file."""
        allowance = Allowance(self._settings.url_max_seconds, token)
        backend = CheckedBackend(self._policy, allowance, field)
        target = _parsed(url, field)
        with httpcore.ConnectionPool(ssl_context=_ssl_context(), network_backend=backend) as pool:
            for _ in range(_MAX_REDIRECTS + 1):
                following = self._visit(pool, target, into, field)
                if following is None:
                    return
                target = following
        raise url_refused(f"the URL redirects more than {_MAX_REDIRECTS} times", field)

    def _visit(
        self, pool: httpcore.ConnectionPool, target: httpx.URL, into: BinaryIO, field: str
    ) -> httpx.URL | None:
        """Save what is at a URL, or return where it redirects to."""
        timeout = dict.fromkeys(
            ("connect", "read", "write", "pool"), self._settings.url_timeout_seconds
        )
        headers = [
            ("Host", target.netloc.decode("ascii")),
            ("User-Agent", "model-lifecycle"),
            ("Accept", "*/*"),
            # Bytes as they are: what a server compressed could grow without limit.
            ("Accept-Encoding", "identity"),
        ]
        place = httpcore.URL(
            scheme=target.raw_scheme,
            host=target.raw_host,
            port=target.port,
            target=target.raw_path,
        )
        try:
            with pool.stream(
                "GET", place, headers=headers, extensions={"timeout": timeout}
            ) as answer:
                found = httpx.Headers(answer.headers)
                if answer.status in _REDIRECTS and "location" in found:
                    return _redirected(target, found["location"], field)
                _check_status(answer.status, target.host, field)
                self._save(answer, found, into, field)
        except httpcore.TimeoutException:
            raise url_unavailable(f"{target.host} does not answer in time", field) from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            reason = str(error) or type(error).__name__
            raise url_unavailable(f"{target.host} cannot be read: {reason}", field) from None
        return None

    def _save(
        self, answer: httpcore.Response, headers: httpx.Headers, into: BinaryIO, field: str
    ) -> None:
        """Write the body as it comes, never more of it than is allowed."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise url_failed("the server compresses what was asked for as it is", field)
        limit, written = self._settings.max_bytes, 0
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large(f"the URL has {declared} bytes; at most {limit} are taken", field)
        for chunk in answer.iter_stream():
            written += len(chunk)
            if written > limit:
                raise too_large(f"the URL has more than the {limit} bytes that are taken", field)
            into.write(chunk)
        if not written:
            raise corrupt("the URL has no content", field)


@cache
def _ssl_context() -> ssl.SSLContext:
    """Read the certificates of those who are trusted, once; it takes some 20 ms."""
    return httpx.create_ssl_context()


def _parsed(url: str, field: str) -> httpx.URL:
    """Return a URL in its parts, read the one way that the request will go."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise url_refused(f"the URL is not valid: {error}", field) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise url_refused("only plain http and https URLs are fetched", field)
    return parsed


def _redirected(target: httpx.URL, location: str, field: str) -> httpx.URL:
    """Return where a redirect leads, held to the same rules as what the client gave."""
    try:
        joined = str(target.join(location))
    except httpx.InvalidURL as error:
        raise url_refused(f"the URL redirects to what is none: {error}", field) from None
    if not isinstance(parse_reference(joined, field), UrlReference):
        raise url_refused("the URL redirects to what is neither http nor https", field)
    return _parsed(joined, field)


def _check_status(status: int, host: str, field: str) -> None:
    if status == 200:
        return
    if status in {404, 410}:
        raise not_found(f"{host} has nothing at the URL", field)
    if status in _PASSING:
        raise url_unavailable(f"{host} answers {status}", field)
    raise url_failed(f"{host} answers {status} instead of the medium", field)
