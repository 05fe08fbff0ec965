"""Two versions side by side: what one wrote to Redis, the other reads."""

import json

import pytest
from pydantic import TypeAdapter

from shared.jobs import JobKind, JobState
from shared.ledger.record import Record
from shared.requests import (
    BatchDownloadRequest,
    DownloadRequest,
    InferRequest,
    RegisterOllamaRequest,
    RegisterRequest,
    UploadRequest,
)

#: A job as the first version wrote it. Never add to it: what came later must not be needed.
FIRST = {
    "id": "019aac2e-7c52-7d10-a3b5-0d0c6e1f2a3b",
    "kind": "download",
    "request": '{"model_source":"huggingface","model_name":"org/model"}',
    "queue": "downloads",
    "model": "org/model",
    "max_attempts": "3",
    "priority": "5",
    "created_at": "1763805600000",
    "available_at": "1763805600000",
    "attempts": "1",
    "crashes": "0",
    "fence": "1",
    "lease_until": "",
    "owner": "",
    "state": "failed",
    "started_at": "1763805601000",
    "finished_at": "1763805602000",
    "result": "",
    "error": '{"code":"unavailable","detail":"the hub does not answer","retryable":true}',
    "progress": '{"completed":1,"total":2,"unit":"bytes","message":""}',
}
#: Requests as the first version kept them.
REQUESTS: dict[type, dict[str, object]] = {
    DownloadRequest: {"model_source": "huggingface", "model_name": "org/model"},
    BatchDownloadRequest: {"downloads": [{"model_name": "org/model"}]},
    UploadRequest: {"repo_name": "repo", "local_model_name": "org_model", "branch": "main"},
    RegisterRequest: {
        "registered_name": "m",
        "task": "text-generation",
        "engine": "transformers",
        "lakefs_repo": "repo",
        "commit_id": "7f3c1d9a5b8e4f60",
        "set_priority_to_one": False,
        "archive_existing_versions": False,
    },
    RegisterOllamaRequest: {
        "local_model_name": "qwen3:0.6b",
        "task": "text-generation-ollama",
        "set_priority_to_one": False,
    },
    InferRequest: {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": "m",
        "data": {"inputs": "x"},
        "options": {},
        "stream": False,
    },
}


def test_record_of_the_first_version_is_read() -> None:
    job = Record(FIRST).job()
    assert (job.kind, job.state, job.attempts) == (JobKind.DOWNLOAD, JobState.FAILED, 1)
    assert job.error is not None
    assert job.error.code == "unavailable"
    assert job.submitter == ""


def test_record_of_a_later_version_is_read_without_what_is_new() -> None:
    def later(text: str) -> str:
        return json.dumps(json.loads(text) | {"new": [1]})

    future = FIRST | {
        "new": "of a later version",
        "error": later(FIRST["error"]),
        "progress": later(FIRST["progress"]),
    }
    assert Record(future).job() == Record(FIRST).job()


@pytest.mark.parametrize("model", REQUESTS)
def test_request_of_the_first_version_is_read(model: type) -> None:
    kept = REQUESTS[model]
    assert (
        TypeAdapter(model)
        .dump_python(TypeAdapter(model).validate_python(kept), exclude_none=True, mode="json")
        .keys()
        >= kept.keys()
    )
