"""HTTP connections to lakeFS itself."""

from urllib.parse import urlsplit

import httpx

from shared.settings import LakeFSSettings

CONNECT_SECONDS = 5.0


def base_url(settings: LakeFSSettings) -> str:
    """Return the address of lakeFS' API."""
    endpoint = settings.endpoint.rstrip("/")
    return endpoint if urlsplit(endpoint).path else f"{endpoint}/api/v1"


def connect(settings: LakeFSSettings) -> httpx.Client:
    """Return a client with the platform's credentials; it connects at its first use."""
    return httpx.Client(
        base_url=base_url(settings),
        auth=(settings.access_key_id, settings.secret_access_key.get_secret_value()),
        timeout=httpx.Timeout(settings.timeout_seconds, connect=CONNECT_SECONDS),
    )
