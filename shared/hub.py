"""The Hugging Face Hub: what a model consists of at one commit, and where its files are.

The only module that knows ``huggingface_hub`` (the extra ``worker``). Files are fetched by
``workers.lifecycle.transfer``, because the hub's own client starts an interrupted file over
(https://github.com/huggingface/huggingface_hub/issues/4196).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2  # the transport of huggingface_hub, whose errors it lets through
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import (  # type: ignore[attr-defined] # no __all__
    filter_repo_objects,
    parse_ratelimit_headers,
)

from shared.errors import (
    DeniedError,
    LifecycleError,
    NotFoundError,
    RequestError,
    UnavailableError,
)
from shared.interruptible import interruptible
from shared.settings import HubSettings

#: The hub counts requests in windows of this length, so that a new one begins within it.
RATE_WINDOW_SECONDS = 300
#: Wait where a hub refuses further requests and does not say for how long.
RATE_LIMITED_SECONDS = 60

#: What the hub says to a token that it does not know; huggingface_hub looks for the same words.
_INVALID_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - words, no secret
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True)
class HubFile:
    """One file of a model; one of the two digests is given."""

    #: Relative to the model, as the hub says it: not to be trusted as a path.
    path: str
    size_bytes: int
    #: Hexadecimal; of files that the hub keeps outside git.
    sha256: str | None = None
    #: Hexadecimal; git's blob id, of files that the hub keeps in git.
    git_sha1: str | None = None


@dataclass(frozen=True)
class HubModel:
    """A model pinned to one commit."""

    repo_id: str
    commit: str
    files: tuple[HubFile, ...]

    def matching(
        self, allow_patterns: Sequence[str] | None, ignore_patterns: Sequence[str] | None
    ) -> tuple[HubFile, ...]:
        """Return the files that the hub's own client would take for these patterns."""
        return tuple(
            filter_repo_objects(
                self.files,
                allow_patterns=None if allow_patterns is None else list(allow_patterns),
                ignore_patterns=None if ignore_patterns is None else list(ignore_patterns),
                key=lambda file: file.path,
            )
        )


class Hub:
    """A hub that speaks the Hugging Face Hub's protocol."""

    def __init__(self, settings: HubSettings) -> None:
        self._endpoint = settings.endpoint.rstrip("/")
        self._timeout_seconds = settings.timeout_seconds
        self._token = settings.token.get_secret_value() if settings.token else None
        #: Whether the hub has answered a call with the token, in this process.
        self._token_worked = False
        # False: never the token that somebody left in this machine's home directory.
        self._api = HfApi(endpoint=self._endpoint, token=self._token or False)

    def model(self, repo_id: str, revision: str | None = None) -> HubModel:
        """List a model's files at a branch, a tag or a commit; by default at the main branch."""
        with self._token_errors(), _hub_errors(repo_id, revision, self._endpoint):
            info = interruptible(
                lambda: self._api.model_info(
                    repo_id, revision=revision, files_metadata=True, timeout=self._timeout_seconds
                )
            )
            # The commit names a directory of ours.
            if info.sha is None or not _COMMIT.fullmatch(info.sha):
                raise ValueError(f"{info.sha!r} is not a commit")
            files = tuple(_hub_file(sibling) for sibling in info.siblings or ())
        return HubModel(repo_id, info.sha, files)

    @contextmanager
    def _token_errors(self) -> Iterator[None]:
        """Tell a token that the hub refuses altogether from a model that it may not read."""
        try:
            yield
        except LifecycleError as error:
            if not self._token or not _refuses_token(error.__cause__):
                raise
            if self._token_worked:
                raise _unavailable(
                    self._endpoint, "it refuses the token in HF_TOKEN, which worked before"
                ) from error
            raise DeniedError(
                f"The hub at {self._endpoint} refuses the token in HF_TOKEN", code="hub_token"
            ) from error
        self._token_worked = True

    def file_url(self, repo_id: str, commit: str, path: str) -> str:
        """Return where a file is fetched from, with ``headers``."""
        return hf_hub_url(repo_id, path, revision=commit, endpoint=self._endpoint)

    def headers(self) -> dict[str, str]:
        """Return what to send with requests for files; secret."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def rate_limited_seconds(headers: Mapping[str, str]) -> int:
    """Return how long an answer with status 429 asks to wait, at most a window of the limit."""
    limit = parse_ratelimit_headers(headers)
    told = headers.get("Retry-After", "")
    if told.isascii() and told.isdigit():
        seconds = int(told)
    elif limit is not None and limit.remaining == 0:
        seconds = int(limit.reset_in_seconds) + 1  # what it says is rounded
    else:
        seconds = RATE_LIMITED_SECONDS
    return min(seconds, RATE_WINDOW_SECONDS)


def _hub_file(sibling: RepoSibling) -> HubFile:
    if sibling.size is None:
        raise ValueError(f"{sibling.rfilename!r} has no size")
    if sibling.lfs is not None:
        return HubFile(sibling.rfilename, sibling.size, sha256=sibling.lfs.sha256)
    if sibling.blob_id is None:
        raise ValueError(f"{sibling.rfilename!r} has no digest")
    return HubFile(sibling.rfilename, sibling.size, git_sha1=sibling.blob_id)


@contextmanager
def _hub_errors(repo_id: str, revision: str | None, endpoint: str) -> Iterator[None]:
    """Turn what goes wrong at the hub into the platform's errors."""
    try:
        yield
    except GatedRepoError as error:
        raise _gated(repo_id, endpoint) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotFoundError(
            f"{repo_id} does not exist at {endpoint}, or is private and not open to the token",
            field="model_name",
            code="model_not_found",
        ) from error
    except RevisionNotFoundError as error:
        raise NotFoundError(
            f"{repo_id} has no revision {revision!r}", field="revision", code="revision_not_found"
        ) from error
    except HfHubHTTPError as error:
        raise _refused(error, repo_id, endpoint) from error
    except (httpx2.HTTPError, OSError) as error:
        raise _unavailable(endpoint, str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unavailable(endpoint, f"its answer for {repo_id} is malformed: {error}") from error


def _refuses_token(cause: BaseException | None) -> bool:
    """Return whether the hub did not read the request because of its token."""
    return (
        isinstance(cause, HfHubHTTPError)
        and cause.response.status_code == 401
        and cause.response.headers.get("X-Error-Message") == _INVALID_TOKEN
    )


def _gated(repo_id: str, endpoint: str) -> RequestError:
    return RequestError(
        f"{endpoint} refuses {repo_id}: it is gated or private. Set HF_TOKEN to the token of an "
        "account that was given access",
        code="model_gated",
    )


def _unavailable(endpoint: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"The hub at {endpoint} fails: {why}", code="hub_unavailable", service="hub"
    )


def _refused(error: HfHubHTTPError, repo_id: str, endpoint: str) -> LifecycleError:
    status = error.response.status_code
    if status >= 500 or status in {408, 429}:
        unavailable = _unavailable(endpoint, f"status {status}")
        if status == 429:
            unavailable.retry_after_seconds = rate_limited_seconds(error.response.headers)
        return unavailable
    if status in {401, 403}:
        return _gated(repo_id, endpoint)
    return RequestError(f"{endpoint} refuses {repo_id}: status {status}", code="hub_refused")
