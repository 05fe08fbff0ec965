"""The jobs about models of the Ollama server: pulled by its own means, registered by its name."""

import re
from contextlib import closing
from typing import Any

from shared.errors import UnsupportedTaskError
from shared.models import ModelVersion
from shared.ollama import OllamaDetails, OllamaModel, OllamaSampling, OllamaServer
from shared.registry import Cause, ModelRegistry
from shared.requests import DownloadRequest, RegisterOllamaRequest
from shared.tasks import Engine, Task
from workers.context import JobContext

_BILLION = 1e9
_SCALES = {"m": 1e6, "b": 1e9}
#: A size as Ollama writes it, ``8.0B``, and as names have it: ``0.5b``, ``8x7b``. No thousands:
#: in a name, ``128k`` is a context.
_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([mb])", re.IGNORECASE)
_NOT_IN_REGISTERED_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_MAX_NAME_LETTERS = 200
#: The inference that a model must pass before it is registered for production.
_SMOKE_PROMPT = "Hello"
_SMOKE_OPTIONS = {"num_predict": 1}


class OllamaPull:
    """The work of a download whose source is Ollama."""

    def __init__(self, server: OllamaServer) -> None:
        self._server = server

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """Have the server pull the model, unless it has it, and return the job's result.

        A model that is there may be nobody else's: a pull would ask a registry that does not know
        it, or cannot be reached.
        """
        request = DownloadRequest.model_validate(context.job.request)

        def report(completed: int, total: int | None, message: str) -> None:
            context.report(completed, total, "bytes", message)

        context.check()
        files, note = 0, {}
        if (model := self._server.find(request.model_name)) is not None:
            note = {"note": f"Ollama has {model.name} already; `ollama pull` brings a newer one"}
        else:
            files = self._server.pull(request.model_name, context.cancel, report).files
            model = self._server.model(request.model_name)
        context.report(model.size_bytes, model.size_bytes, "bytes", model.name)
        return {
            "local_model_name": model.name,
            "model_name": request.model_name,
            "model_source": request.model_source,
            "revision": model.digest,
            "files": files,
            "size_bytes": model.size_bytes,
            **note,
        }


class RegisterOllama:
    """The work of a registration of one of the server's models."""

    def __init__(self, registry: ModelRegistry, server: OllamaServer) -> None:
        self._registry = registry
        self._server = server

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """Make the model a version, give it its stage and return the job's result."""
        request = RegisterOllamaRequest.model_validate(context.job.request)
        model = self._server.model(request.local_model_name)
        details = self._server.show(model.name)
        _check_task(model, details)
        context.check()
        if request.smoke_test or (request.smoke_test is None and request.stage == "production"):
            self._try(model, context)
        version = self._registry.create_version(
            request.registered_name or registered_name(model.name),
            None,
            _tags(request, model, details),
            request.version_description,
            context.job.id,
        )
        if request.stage is not None:
            version = self._registry.set_stage(
                version.name,
                version.version,
                request.stage,
                cause=Cause("register", context.job.id, context.job.submitter),
            )
        return _result(version)

    def _try(self, model: OllamaModel, context: JobContext) -> None:
        """Generate one token; raise what hinders it, for instance a file that is cut off."""
        sampling = OllamaSampling(_SMOKE_OPTIONS)
        with closing(
            self._server.generate(model.name, _SMOKE_PROMPT, sampling, context.cancel)
        ) as chunks:
            for _ in chunks:
                context.check()


def registered_name(ollama_name: str) -> str:
    """Return the name under which a model is registered unless the request has another."""
    return _NOT_IN_REGISTERED_NAMES.sub("_", ollama_name)[:_MAX_NAME_LETTERS]


def estimate_billions(details: OllamaDetails, ollama_name: str) -> float | None:
    """Return a model's parameters in billions, from the best source that there is."""
    if details.parameter_count:
        return details.parameter_count / _BILLION
    name, _, tag = ollama_name.rpartition("/")[2].partition(":")
    for text in (details.parameter_size or "", tag, name):
        for part in re.split(r"[^A-Za-z0-9.]+", text):
            if match := _SIZE.fullmatch(part):
                experts, number, unit = match.groups()
                return int(experts or 1) * float(number) * _SCALES[unit.lower()] / _BILLION
    return None


def _check_task(model: OllamaModel, details: OllamaDetails) -> None:
    """Refuse models that only embed; old servers do not say what a model can do."""
    if details.capabilities and "completion" not in details.capabilities:
        can = ", ".join(sorted(details.capabilities))
        raise UnsupportedTaskError(
            f"{model.name} does not generate text; it can: {can}", field="local_model_name"
        )


def _tags(
    request: RegisterOllamaRequest, model: OllamaModel, details: OllamaDetails
) -> dict[str, str]:
    tags = {
        "inference_task": Task.TEXT_GENERATION.value,
        "engine": Engine.OLLAMA.value,
        "model_source": "ollama",
        "model_name": model.name,
        "ollama_model_name": model.name,
        # A name moves on when it is pulled again: these say what was registered. The manifest's
        # digest differs between hosts, that of the file does not.
        "revision": model.digest,
        "inference_priority": "1" if request.set_priority_to_one else "0",
    }
    if details.gguf_sha256 is not None:
        tags["gguf_sha256"] = details.gguf_sha256
    if details.context_length is not None:
        tags["context_length"] = str(details.context_length)
    if billions := request.model_params or estimate_billions(details, model.name):
        tags["model_params"] = f"{billions:.9f}".rstrip("0").rstrip(".")
    return tags


def _result(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "stage": version.stage,
        "tags": version.tags,
    }
