"""What Ollama, its client and the network raise, as errors of the platform."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
import ollama

from shared.errors import (
    DeniedError,
    InsufficientDiskError,
    LifecycleError,
    NotFoundError,
    OutOfMemoryError,
    RequestError,
    UnavailableError,
)
from shared.ollama.refusals import refusal_of

#: Of an error that came in a stream whose status had been sent before.
_IN_STREAM = -1
#: Ollama has no codes for errors. These words are its own, or those of what runs its models:
#: https://github.com/ollama/ollama/blob/main/llm/status.go
_NO_MEMORY = (
    "out of memory",
    "out of device memory",
    "more system memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate",
    "cudamalloc failed",
    "hipmalloc failed",
)
_NO_DISK = "no space left on device"
_NOT_IN_LIBRARY = "file does not exist"
#: How a pull begins to fail, and how it does on the way.
_MANIFEST = "pull model manifest"
_NO_NETWORK = ("max retries exceeded", "dial tcp", "i/o timeout", "no such host")
_TOO_OLD = "requires a newer version of ollama"
_NO_SUCH_ROUTE = "page not found"


def unavailable(host: str, why: str) -> UnavailableError:
    """Return the error of a server that answered, but failed at this request.

    The request itself may be the reason, for instance where it takes down the process that runs
    the model. So a job sends it a few times more, and not until an outage is over.
    """
    return UnavailableError(f"Ollama at {host} {why}", code="ollama_unavailable")


def _away(host: str, why: str) -> UnavailableError:
    """Return the error of a server that does not answer."""
    return UnavailableError(f"Ollama at {host} {why}", code="ollama_unavailable", service="Ollama")


def missing(host: str, name: str, there: Iterable[str] = ()) -> NotFoundError:
    """Return the error of a model that the server does not have; name what is like it there."""
    near = near_names(name, there)
    hint = f"Did you mean {' or '.join(map(repr, near))}? Else pull" if near else "Pull"
    return NotFoundError(
        f"Ollama at {host} has no model {name!r}. {hint} it first: POST /models/download with "
        f'"model_source": "ollama", or `ollama pull {name}`',
        code="model_not_found",
    )


def near_names(name: str, there: Iterable[str]) -> list[str]:
    """Return the names that are there and like the one that is not, the nearest first."""
    names = list(there)
    base = name.partition(":")[0].lower()
    same = [each for each in names if each.partition(":")[0].lower() == base]
    close = difflib.get_close_matches(name.lower().removesuffix(":latest"), names, n=3)
    return list(dict.fromkeys([*same, *close]))[:3]


@contextmanager
def translated(host: str, name: str | None = None) -> Iterator[None]:
    """Turn what goes wrong with the server, about the model of that name, into our errors."""
    try:
        yield
    except ollama.ResponseError as error:
        raise _answered(host, name, error.status_code, error.error) from error
    except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _away(
            host,
            "does not answer. Start it with `ollama serve`, or set OLLAMA_HOST to where it runs",
        ) from error
    except httpx.TimeoutException as error:
        raise _away(host, "accepted the request and did not answer in time") from error
    except httpx.HTTPError as error:
        raise _away(host, f"broke off: {type(error).__name__}: {error}") from error
    # The client reads whatever it gets as the JSON that it expects.
    except (ValueError, TypeError, AttributeError) as error:
        raise unavailable(host, f"gave an answer that is not Ollama's: {error}") from error


def _answered(host: str, name: str | None, status: int, words: str) -> LifecycleError:
    """Return what a status and Ollama's words mean."""
    said = words.lower()
    if name and status == 404 and _NO_SUCH_ROUTE not in said:
        return missing(host, name)
    if name and _NOT_IN_LIBRARY in said:
        return NotFoundError(f"Ollama's library has no model {name!r}", code="model_not_found")
    if (failed := _registry_failed(host, status, words)) is not None:
        return failed
    if any(sign in said for sign in _NO_MEMORY):
        return OutOfMemoryError(f"Ollama at {host} has no memory for {name}: {words}")
    # A load for which there is no memory says too that the model cannot be loaded.
    return refusal_of(words) or _refused(host, status, words or f"status {status}")


def _registry_failed(host: str, status: int, words: str) -> LifecycleError | None:
    """Return the error of a pull that failed at the registry; it is not Ollama's own."""
    said = words.lower()
    no_network = any(sign in said for sign in _NO_NETWORK)
    if _MANIFEST not in said and not (status == _IN_STREAM and no_network):
        return None
    told = f"the registry that Ollama at {host} pulls from fails: {words}"
    if _TOO_OLD in said:
        return RequestError(told, code="ollama_refused")
    service = "Ollama's registry" if no_network else ""
    return UnavailableError(told, code="ollama_registry_unavailable", service=service)


def _refused(host: str, status: int, words: str) -> LifecycleError:
    if _NO_DISK in words.lower():
        return InsufficientDiskError(f"The disk of Ollama at {host} is full: {words}")
    if status in {401, 403}:
        return DeniedError(f"Ollama at {host} refuses: {words}", code="ollama_unauthorized")
    if status in {408, 429, 502, 503, 504}:
        return _away(host, f"cannot answer now: {words}")
    if status in {_IN_STREAM, 499} or status >= 500:
        return unavailable(host, f"fails: {words}")
    return RequestError(f"Ollama at {host} refuses: {words}", code="ollama_refused")
