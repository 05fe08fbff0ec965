"""Who makes a call: the holder of an API key, or anybody where there are no keys."""

import hmac
import time
from dataclasses import dataclass
from typing import Annotated

from cachetools import TTLCache
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from api.exposure import is_loopback
from shared.errors import UnauthenticatedError, UnavailableError
from shared.identity.keys import ApiKey, digest_of, id_in
from shared.identity.roles import Role
from shared.identity.store import KeyStore
from shared.settings import ApiSettings

#: The submitter of what the key in ``API_ADMIN_KEY`` submits.
BOOTSTRAP_ID = "admin"
#: Keys remembered at once.
_CACHED_KEYS = 4096


@dataclass(frozen=True)
class Caller:
    """Who makes a call."""

    #: The id of the API key; empty where there are no keys.
    id: str
    role: Role

    @property
    def submitter(self) -> str | None:
        """Whose jobs and files exist for this caller; None: everybody's."""
        return None if self.role is Role.ADMIN else self.id


#: Whoever calls while there are no keys.
NOBODY = Caller("", Role.ADMIN)
#: Whoever calls while Redis is away and no key can be checked; see ``ANSWERED_UNCHECKED``.
UNCHECKED = Caller("", Role.VIEWER)


class Callers:
    """Tells callers by their keys; remembers records for seconds, so that most calls ask no Redis.

    Its memory is the event loop's alone; only Redis is asked from other threads.
    """

    def __init__(self, keys: KeyStore, settings: ApiSettings) -> None:
        self._keys = keys
        admin_key = settings.admin_key
        self._admin_digest = digest_of(admin_key.get_secret_value()) if admin_key else ""
        # Beyond loopback a Redis that has lost its keys must not open what they closed.
        exposed = not is_loopback(settings.host) and not settings.allow_open
        self._always_closed = settings.require_keys or bool(admin_key) or exposed
        self._records: TTLCache[str, ApiKey] = TTLCache(_CACHED_KEYS, settings.key_cache_seconds)
        self._exist: bool | None = None
        self._look_again_at = 0.0
        self._cache_seconds = settings.key_cache_seconds

    async def identify(self, text: str | None) -> Caller:
        """Return whose key a text is; raise ``UnauthenticatedError`` where that lets nobody in."""
        caller = await self._holder(text) if text else None
        if caller is not None:
            return caller
        if not await self.closed():
            return NOBODY
        raise UnauthenticatedError(
            "the API key is unknown"
            if text
            else "an API key is needed, as `Authorization: Bearer <key>` or `X-API-Key: <key>`"
        )

    async def closed(self) -> bool:
        """Return whether a key is needed."""
        if self._always_closed:
            return True
        if self._exist is None or time.monotonic() > self._look_again_at:
            # Before the answer: one looks, and the others meanwhile take what was known.
            self._look_again_at = time.monotonic() + self._cache_seconds
            try:
                self._exist = await run_in_threadpool(self._keys.exist)
            except UnavailableError:
                # No key can be made while Redis is away; who never heard of one cannot know.
                if self._exist is None:
                    raise
        return self._exist

    async def _holder(self, text: str) -> Caller | None:
        if self._admin_digest and hmac.compare_digest(digest_of(text), self._admin_digest):
            return Caller(BOOTSTRAP_ID, Role.ADMIN)
        key_id = id_in(text)
        key = await self._record(key_id, text) if key_id else None
        if key is None or not key.matches(text):
            return None
        if reason := key.refusal():
            raise UnauthenticatedError(f"the API key {reason}")
        return Caller(key.id, key.role)

    async def _record(self, key_id: str, text: str) -> ApiKey | None:
        key = self._records.get(key_id)
        if key is None:
            # Unknown ids are not remembered: a fresh key works at once.
            key = await run_in_threadpool(self._fetched, key_id, text)
            if key is not None:
                self._records[key_id] = key
        return key

    def _fetched(self, key_id: str, text: str) -> ApiKey | None:
        key = self._keys.find(key_id)
        if key is not None and key.matches(text):
            self._keys.note_use(key_id)
        return key


async def _calling(request: Request) -> Caller:
    # Asynchronous, as a function that is not would be called in a thread of its own.
    caller = request.scope["caller"]
    assert isinstance(caller, Caller)  # noqa: S101 - the guard puts it there
    return caller


Calling = Annotated[Caller, Depends(_calling)]
