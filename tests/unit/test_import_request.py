"""What an import may be asked for, and what it makes of what was left out."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from shared.import_request import ImportRequest, repository_of
from shared.requests import RepoName

HUB = {"model_name": "org/model", "registered_name": "m", "task": "asr"}
OLLAMA = {
    "model_source": "ollama",
    "model_name": "qwen3:0.6b",
    "registered_name": "q",
    "task": "text-generation",
}


@pytest.mark.parametrize(
    "body", [HUB, OLLAMA, OLLAMA | {"task": "text-generation-ollama"}, HUB | {"branch": "try"}]
)
def test_a_request_is_read_again_as_it_was_kept(body: dict[str, Any]) -> None:
    request = ImportRequest.model_validate(body)
    kept = request.model_dump(mode="json", exclude_none=True)
    assert ImportRequest.model_validate(kept) == request
    assert request.engine == ("ollama" if request.from_ollama else "transformers")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (HUB | {"model_name": "../x"}, ("model_name",)),
        (HUB | {"engine": "ollama"}, ("engine",)),
        (OLLAMA | {"engine": "transformers"}, ("engine",)),
        (OLLAMA | {"task": "asr"}, ("engine",)),
        (OLLAMA | {"revision": "main"}, ("revision",)),
        (OLLAMA | {"allow_patterns": ["*"]}, ("allow_patterns",)),
        (OLLAMA | {"repo_name": "repo"}, ("repo_name",)),
        (OLLAMA | {"branch": "main"}, ("branch",)),
        (HUB | {"repo_name": "No"}, ("repo_name",)),
        (HUB | {"smoke_test": {}}, ("smoke_test", "data")),
        (
            HUB | {"smoke_test": {"data": {}, "options": {"warmth": 1}}},
            ("smoke_test", "options", "warmth"),
        ),
        ({"model_name": "org/model", "task": "asr"}, ("registered_name",)),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], field: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        ImportRequest.model_validate(body)
    assert [line["loc"] for line in refused.value.errors()] == [field]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "huggingfacetb-smollm2-135m-instruct"),
        ("a", "model-a"),
        ("_", "model"),
        ("Qwen/Qwen2.5_7B", "qwen-qwen2-5-7b"),
        ("x" * 62 + "/" + "y" * 90, "x" * 62),
    ],
)
def test_a_repositorys_name_is_made_from_the_models(name: str, repository: str) -> None:
    assert repository_of(name) == repository
    assert TypeAdapter(RepoName).validate_python(repository) == repository
