"""Where the API is and who asks: what both clients are made with."""

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from client.calls import Call
from client.errors import AddressError

DEFAULT_URL = "http://127.0.0.1:8009"


@dataclass(frozen=True)
class Connection:
    """The API's address and the key to it."""

    url: str
    api_key: str | None = None

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> "Connection":
        """Take what was not given from ``LIFECYCLE_API_URL`` and ``LIFECYCLE_API_KEY``."""
        address = url or os.environ.get("LIFECYCLE_API_URL") or DEFAULT_URL
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise AddressError(f"{address!r} is no address of an API; one is {DEFAULT_URL}")
        return cls(address.rstrip("/"), api_key or os.environ.get("LIFECYCLE_API_KEY") or None)

    @property
    def on_this_machine(self) -> bool:
        """Whether no proxy can lie in between."""
        return urlsplit(self.url).hostname in {"127.0.0.1", "::1", "localhost"}

    @property
    def headers(self) -> dict[str, str]:
        """What every call says."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}


class Sending(AbstractContextManager["Sending"]):
    """One attempt of a call, as arguments of httpx; holds the file that it sends open."""

    def __init__(self, call: Call[Any]) -> None:
        self._call = call
        self._open = ExitStack()

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def arguments(self) -> dict[str, Any]:
        """What httpx' ``request`` is given."""
        call = self._call
        arguments: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "params": dict(call.params) or None,
            "headers": dict(call.headers),
            "timeout": call.timeout_seconds,
        }
        if call.upload:
            content = call.upload.open()
            if not isinstance(content, bytes) and content is not call.upload.content:
                self._open.enter_context(content)
            arguments["files"] = {"file": (call.upload.name, content)}
        elif call.body is not None:
            arguments["json"] = call.body
        return arguments
