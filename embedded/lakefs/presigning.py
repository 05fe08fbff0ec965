"""Signed links: who holds one may do one thing at one place for some time."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from urllib.parse import urlencode

from embedded.lakefs.errors import ForbiddenError, InvalidError
from embedded.lakefs.model import Place

LINK_SECONDS = 15 * 60
#: How long an address that was handed out for an upload can be linked.
ADDRESS_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Link:
    """A signed URL."""

    url: str
    #: Unix seconds.
    expires: int


class Signer:
    """Signs and checks with a key that only the server knows."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._key = hashlib.sha256(f"embedded-lakefs:{secret}".encode()).digest()

    def link(self, base_url: str, method: str, path: str) -> Link:
        """Return a URL for `method` on `path` that works without credentials."""
        expires = int(self._clock()) + LINK_SECONDS
        query = urlencode({"expires": expires, "signature": self._sign(method, path, str(expires))})
        return Link(f"{base_url.rstrip('/')}{path}?{query}", expires)

    def check_link(self, method: str, path: str, expires: int, signature: str) -> None:
        """Refuse a link that was not signed here or is too old."""
        genuine = self._sign(method, path, str(expires))
        if not hmac.compare_digest(genuine.encode(), signature.encode()) or self._clock() > expires:
            raise ForbiddenError("the link is not valid or has expired")

    def address(self, upload_id: str, place: Place) -> str:
        """Return where one upload for `place` goes, relative to the storage namespace."""
        name = f"data/{int(self._clock())}-{upload_id}"
        return f"{name},{self._sign(name, *astuple(place))}"

    def check_address(self, address: str, place: Place) -> str:
        """Return the upload that an address was handed out for; it must be for `place`."""
        name, _, signature = address.rpartition(",")
        genuine = self._sign(name, *astuple(place))
        if not hmac.compare_digest(genuine.encode(), signature.encode()):
            raise InvalidError("invalid address signature: invalid address")
        created, _, upload_id = name.removeprefix("data/").partition("-")
        if self._clock() > int(created) + ADDRESS_SECONDS:
            raise InvalidError("link address expired")
        return upload_id

    def _sign(self, *parts: str) -> str:
        digest = hmac.digest(self._key, "\0".join(parts).encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
