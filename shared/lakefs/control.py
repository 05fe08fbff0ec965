"""lakeFS' control plane: its SDK with a timeout on every call and our errors."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

import pydantic.v1
import urllib3
from lakefs_sdk.api.branches_api import BranchesApi
from lakefs_sdk.api.commits_api import CommitsApi
from lakefs_sdk.api.config_api import ConfigApi
from lakefs_sdk.api.experimental_api import ExperimentalApi
from lakefs_sdk.api.internal_api import InternalApi
from lakefs_sdk.api.objects_api import ObjectsApi
from lakefs_sdk.api.refs_api import RefsApi
from lakefs_sdk.api.repositories_api import RepositoriesApi
from lakefs_sdk.api.staging_api import StagingApi
from lakefs_sdk.api.tags_api import TagsApi
from lakefs_sdk.api_client import ApiClient
from lakefs_sdk.configuration import Configuration
from lakefs_sdk.exceptions import ApiException
from lakefs_sdk.models.storage_config import StorageConfig

from shared.errors import RequestError
from shared.interruptible import interruptible
from shared.lakefs.connection import CONNECT_SECONDS, base_url
from shared.lakefs.errors import Answers, malformed, unavailable
from shared.settings import LakeFSSettings

T = TypeVar("T")

#: Entries asked for at once; lakeFS gives and deletes no more.
PAGE = 1000


class _NotJSONError(Exception):
    """An answer that should be lakeFS' JSON is something else; its message is its type."""


class _Client(ApiClient):
    """The SDK's client, which would take a page of HTML for an object of lakeFS."""

    def deserialize(self, response: Any, response_type: Any) -> Any:
        """Read an answer's body."""
        media_type = response.getheader("content-type")
        # The answer to a new branch is its commit's id, as a text.
        if response_type != "str" and media_type and "json" not in media_type:
            raise _NotJSONError(media_type)
        return super().deserialize(response, response_type)  # type: ignore[no-untyped-call]


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
        self._client = client = _Client(configuration)
        self.answers = Answers(settings)
        self._timeouts = (CONNECT_SECONDS, settings.timeout_seconds)
        self.branches = BranchesApi(client)
        self.commits = CommitsApi(client)
        self.config = ConfigApi(client)
        self.internal = InternalApi(client)
        self.multipart = ExperimentalApi(client)
        self.objects = ObjectsApi(client)
        self.refs = RefsApi(client)
        self.repositories = RepositoriesApi(client)
        self.staging = StagingApi(client)
        self.tags = TagsApi(client)

    def close(self) -> None:
        """Give the connections back."""
        self._client.rest_client.pool_manager.clear()

    def call(self, method: Callable[..., T], *args: object, **options: object) -> T:
        """Call a method of the SDK; a job that is told to stop leaves the call."""
        with self.answers.translated():
            try:
                answer = interruptible(
                    lambda: method(*args, **options, _request_timeout=self._timeouts)
                )
            except ApiException as error:
                # Without a status it is a failed TLS handshake, for the reason that it gives.
                body = error.body if error.status else str(error.reason)
                raise self.answers.error(int(error.status or 0), body) from error
            except _NotJSONError as error:
                raise self.answers.foreign(f"it sends {error}") from error
            except pydantic.v1.ValidationError as error:
                if error.model.__module__.startswith("lakefs_sdk.models."):
                    # What a connection that broke within the head leaves of an answer.
                    raise malformed() from error
                # What the SDK will not send.
                raise RequestError(f"not lakeFS' API: {error}", code="lakefs_refused") from error
        self.answers.accept()
        return answer

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
