"""lakeFS' control plane: its SDK with a timeout on every call and our errors."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from lakefs_sdk.api.branches_api import BranchesApi
from lakefs_sdk.api.commits_api import CommitsApi
from lakefs_sdk.api.config_api import ConfigApi
from lakefs_sdk.api.experimental_api import ExperimentalApi
from lakefs_sdk.api.objects_api import ObjectsApi
from lakefs_sdk.api.refs_api import RefsApi
from lakefs_sdk.api.repositories_api import RepositoriesApi
from lakefs_sdk.api.staging_api import StagingApi
from lakefs_sdk.api_client import ApiClient
from lakefs_sdk.configuration import Configuration
from lakefs_sdk.models.storage_config import StorageConfig

from shared.lakefs.errors import translated, unavailable
from shared.settings import LakeFSSettings

T = TypeVar("T")

CONNECT_SECONDS = 5.0
#: Entries asked for at once; lakeFS gives and deletes no more.
PAGE = 1000


def base_url(settings: LakeFSSettings) -> str:
    """Return the address of lakeFS' API."""
    endpoint = settings.endpoint.rstrip("/")
    return endpoint if urlsplit(endpoint).path else f"{endpoint}/api/v1"


class Control:
    """The parts of the SDK that the platform uses; safe to use from several threads."""

    def __init__(self, settings: LakeFSSettings) -> None:
        configuration = Configuration(
            host=base_url(settings),
            username=settings.access_key_id,
            password=settings.secret_access_key.get_secret_value(),
        )
        # One repetition, of calls that may be repeated, covers a connection that the server closed
        # while it was idle. More is the job runner's business: it waits longer each time.
        configuration.retries = urllib3.Retry(total=1, redirect=0)  # type: ignore[assignment]
        configuration.connection_pool_maxsize = 16
        client = ApiClient(configuration)
        self._timeouts = (CONNECT_SECONDS, settings.timeout_seconds)
        self.branches = BranchesApi(client)
        self.commits = CommitsApi(client)
        self.config = ConfigApi(client)
        self.multipart = ExperimentalApi(client)
        self.objects = ObjectsApi(client)
        self.refs = RefsApi(client)
        self.repositories = RepositoriesApi(client)
        self.staging = StagingApi(client)

    def call(self, method: Callable[..., T], *args: object, **options: object) -> T:
        """Call a method of the SDK."""
        with translated():
            return method(*args, **options, _request_timeout=self._timeouts)

    def pages(
        self, method: Callable[..., Any], *args: object, amount: int = PAGE, **options: object
    ) -> Iterator[Any]:
        """Yield all results of a listing method of the SDK."""
        after, more = "", True
        while more:
            page = self.call(method, *args, amount=amount, after=after, **options)
            yield from page.results
            after, more = page.pagination.next_offset, page.pagination.has_more

    @cached_property
    def storage(self) -> StorageConfig:
        """What the store behind lakeFS can do; asked once."""
        storage = self.call(self.config.get_config).storage_config
        if storage is None:
            raise unavailable("it does not tell what its object store can do")
        return storage
