"""Signed addresses that stand in for a CDN: good for a while, for one file, without a token."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from embedded.hub.errors import LinkRefusedError

LINK_SECONDS = 3600


class LinkSigner:
    """Signs with a secret of this process, so a restart makes old links void."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock

    def sign(self, path: str) -> str:
        """Return the path, encoded, with its query."""
        expires = str(int(self._clock()) + LINK_SECONDS)
        return f"{quote(path)}?Expires={expires}&Signature={self._signature(path, expires)}"

    def verify(self, path: str, query: Mapping[str, str]) -> None:
        """Refuse a decoded path whose query was not made by `sign` lately."""
        expires = query.get("Expires", "")
        expected = self._signature(path, expires).encode()
        if not hmac.compare_digest(query.get("Signature", "").encode(), expected):
            raise LinkRefusedError
        if self._clock() > int(expires):
            raise LinkRefusedError

    def _signature(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\0{expires}".encode(), hashlib.sha256).hexdigest()
