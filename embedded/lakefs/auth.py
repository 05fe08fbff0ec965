"""Basic authentication with the one key pair that the server is started with."""

import base64
import binascii
import hmac
from dataclasses import dataclass, field

from starlette.requests import Request

from embedded.lakefs.errors import UnauthorizedError


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key id and its secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)

    def check(self, request: Request) -> None:
        """Refuse a request that does not carry these credentials."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError):
            raise UnauthorizedError from None
        expected = f"{self.access_key_id}:{self.secret_access_key}".encode()
        if scheme.lower() != "basic" or not hmac.compare_digest(given, expected):
            raise UnauthorizedError
