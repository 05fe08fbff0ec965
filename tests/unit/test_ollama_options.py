"""Which options a request may set on Ollama, and under which names."""

import ollama
import pytest
from pydantic import TypeAdapter, ValidationError

from shared.tasks import KeepAlive, OllamaOptions


def test_every_option_of_the_client_is_known() -> None:
    assert set(ollama.Options.model_fields) <= set(OllamaOptions.model_fields)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValidationError, match="num_predikt"):
        OllamaOptions.model_validate({"num_predikt": 3})


@pytest.mark.parametrize(
    "option",
    [{"num_beams": 2}, {"early_stopping": True}, {"length_penalty": 1.0}, {"max_length": 9}],
)
def test_an_option_that_only_transformers_has_is_named(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="Ollama has no such option") as refused:
        OllamaOptions.model_validate(option)
    assert refused.value.errors()[0]["loc"] == tuple(option)


def test_an_option_that_only_transformers_has_may_be_null() -> None:
    assert OllamaOptions.model_validate({"num_beams": None}) == OllamaOptions()


@pytest.mark.parametrize(
    ("common", "own"), [("max_new_tokens", "num_predict"), ("repetition_penalty", "repeat_penalty")]
)
def test_an_option_has_one_value_though_it_has_two_names(common: str, own: str) -> None:
    with pytest.raises(ValidationError, match=f"{common} and {own} are the same option"):
        OllamaOptions.model_validate({common: 2, own: 3})


@pytest.mark.parametrize(
    ("given", "kept"), [("10m", "10m"), ("1h30m", "1h30m"), ("-1", -1.0), ("30", 30.0), (0, 0.0)]
)
def test_a_stay_in_memory_is_a_duration_or_seconds(given: object, kept: object) -> None:
    assert TypeAdapter(KeepAlive).validate_python(given) == kept


@pytest.mark.parametrize("given", ["soon", "", "inf", "nan", "5 m", "m"])
def test_what_ollama_would_not_take_as_a_duration_is_refused(given: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(KeepAlive).validate_python(given)
