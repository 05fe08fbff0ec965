"""What the manager hears is what transformers hears: same weights, sound and options."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    WhisperFeatureExtractor,
    pipeline,
)

from shared.cancellation import CancelToken
from shared.errors import CancelledError, InvalidInputError, UnsupportedTaskError
from shared.settings import MIB, InferenceSettings, Settings, StorageSettings
from shared.tasks import AsrOptions, Task
from tests.cancelling import CancelAfter
from tests.model_stores import DirectoryStore, StaticRegistry
from tests.tiny_audio_models import (
    LABELS,
    SAMPLING_RATE,
    WHISPER_POSITIONS,
    data_uri,
    noise,
    tiny_ast,
    tiny_wav2vec2_classifier,
    tiny_wav2vec2_ctc,
    tiny_whisper,
)
from tests.tiny_models import tiny_llama
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import TransformersModel
from workers.inference.handlers.whisper import WhisperHandler
from workers.inference.handlers.whisper_progress import WhisperProgress
from workers.inference.manager import InferenceManager, build_manager
from workers.inference.media import DecodedAudio

SHORT, LONG = noise(1.5, 0), noise(4.3, 1)
VERY_LONG = noise(75, 2)


class Stack:
    """A manager on stores of its own."""

    def __init__(self, root: Path) -> None:
        self.store = DirectoryStore(root / "store")
        self.registry = StaticRegistry()
        settings = Settings(
            inference=InferenceSettings(device="cpu", cache_max_bytes=64 * MIB, preload=False),
            storage=StorageSettings(
                snapshots_dir=root / "snapshots", snapshots_max_bytes=0, reserve_bytes=0
            ),
        )
        self.manager: InferenceManager = build_manager(settings, self.registry, self.store)

    def publish(
        self, name: str, make: Callable[..., Path], task: Task = Task.ASR, **options: Any
    ) -> Path:
        """Put a tiny model into the store and the registry; return its files."""
        location = self.store.location(name.encode().hex())
        directory = make(self.store.directory(location), **options)
        self.registry.add(name, location, task=task)
        return directory

    def ask(self, model: str, sound: NDArray[np.float32], **more: Any) -> dict[str, Any]:
        """Ask what is said, with options given by name."""
        return self._infer(Task.ASR, model, sound, more)

    def classify(self, model: str, sound: NDArray[np.float32], **more: Any) -> dict[str, Any]:
        """Ask what a sound is."""
        return self._infer(Task.AUDIO_CLASSIFICATION, model, sound, more)

    def _infer(
        self, task: Task, model: str, sound: NDArray[np.float32], more: dict[str, Any]
    ) -> dict[str, Any]:
        names = more.keys() & {"token", "on_token", "on_progress"}
        keywords = {name: more.pop(name) for name in names}
        data = {"audio": data_uri(sound)}
        return self.manager.infer(task, "transformers", model, data, more, **keywords)


class Whisper:
    """The same Whisper, called directly."""

    def __init__(self, directory: Path) -> None:
        self.model: Any = AutoModelForSpeechSeq2Seq.from_pretrained(directory)
        self.processor: Any = AutoProcessor.from_pretrained(directory)  # type: ignore[no-untyped-call]

    def ids(self, sound: NDArray[np.float32], **options: Any) -> list[int]:
        """Return the tokens that it generates."""
        long = len(sound) > self.processor.feature_extractor.n_samples
        features = self.processor(
            sound,
            sampling_rate=SAMPLING_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if long else {}),
        )
        given = {"return_timestamps": True, **options} if long else options
        found: list[int] = self.model.generate(**features, **given)[0].tolist()
        return found

    def text(self, ids: list[int]) -> str:
        """Return what the tokens say."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True))

    def read(self, sound: NDArray[np.float32], timestamps: Any, **options: Any) -> dict[str, Any]:
        """Return what transformers' pipeline reads, told all that it would choose itself."""
        reader = pipeline(
            "automatic-speech-recognition",
            model=self.model,
            tokenizer=self.processor.tokenizer,
            feature_extractor=self.processor.feature_extractor,
            device="cpu",
        )
        given = {"num_beams": 1, "max_length": WHISPER_POSITIONS, "max_new_tokens": None, **options}
        found: Any = reader(
            {"raw": sound.copy(), "sampling_rate": SAMPLING_RATE},
            return_timestamps=timestamps,
            generate_kwargs=given,
        )
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Have torch work on one thread: on models this small, many only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("audio"))
    yield stack
    stack.manager.close()


@pytest.fixture(scope="module")
def whisper(stack: Stack) -> Whisper:
    return Whisper(stack.publish("whisper", tiny_whisper))


@pytest.fixture(scope="module")
def ctc(stack: Stack) -> Path:
    return stack.publish("wav2vec2", tiny_wav2vec2_ctc)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Collect the token ids that the handler gets from the engine."""
    seen: list[list[int]] = []
    postprocess = WhisperHandler.postprocess

    def spy(
        self: WhisperHandler,
        model: TransformersModel,
        call: InferenceCall,
        inputs: Any,
        output: Any,
    ) -> dict[str, Any]:
        seen.append(output["sequences"][0].tolist())
        return postprocess(self, model, call, inputs, output)

    monkeypatch.setattr(WhisperHandler, "postprocess", spy)
    return seen


@pytest.mark.parametrize(
    ("sound", "options"),
    [
        pytest.param(SHORT, {}, id="greedy"),
        pytest.param(SHORT, {"max_new_tokens": 11}, id="cut-off"),
        pytest.param(SHORT, {"num_beams": 3, "length_penalty": 2.0}, id="beams"),
        pytest.param(SHORT, {"repetition_penalty": 1.7}, id="repetition-penalty"),
        pytest.param(SHORT, {"language": "french"}, id="language"),
        pytest.param(SHORT, {"language": "de", "task": "translate"}, id="translate"),
        pytest.param(SHORT, {"return_timestamps": True}, id="timestamps"),
        pytest.param(SHORT, {"temperature": 0.8, "top_k": 20, "seed": 5}, id="sampling"),
        pytest.param(LONG, {}, id="long"),
        pytest.param(LONG, {"max_new_tokens": 11, "num_beams": 2}, id="long-beams-cut-off"),
        pytest.param(LONG, {"language": "de", "task": "translate"}, id="long-translate"),
        pytest.param(LONG, {"temperature": 0.8, "seed": 5}, id="long-sampling"),
    ],
)
def test_whispers_tokens_are_those_of_generate(
    stack: Stack,
    whisper: Whisper,
    generated: list[list[int]],
    sound: NDArray[np.float32],
    options: dict[str, Any],
) -> None:
    result = stack.ask("whisper", sound, **options)

    given = dict(options)
    torch.manual_seed(given.pop("seed", 0))
    expected = whisper.ids(sound, **given)
    assert generated == [expected]
    assert len(expected) > 10
    assert result["text"] == whisper.text(expected) != ""
    metadata = result["metadata"]
    assert metadata["duration_seconds"] == pytest.approx(len(sound) / SAMPLING_RATE, abs=0.001)
    assert metadata["sampling_rate"] == SAMPLING_RATE
    assert metadata["chunks"] >= (3 if sound is LONG else 1)
    assert metadata["output_tokens"] == len(expected)


@pytest.mark.parametrize(
    ("sound", "timestamps"),
    [(SHORT, True), (SHORT, "word"), (LONG, "word")],
    ids=["short-segments", "short-words", "long-words"],
)
def test_whispers_chunks_are_those_of_the_pipeline(
    stack: Stack, whisper: Whisper, sound: NDArray[np.float32], timestamps: Any
) -> None:
    result = json.loads(
        json.dumps(stack.ask("whisper", sound, return_timestamps=timestamps), allow_nan=False)
    )
    expected = whisper.read(sound, timestamps)
    assert result["text"] == expected["text"]
    assert result["chunks"] == json.loads(json.dumps(expected["chunks"], default=float))
    assert len(result["chunks"]) > 1


def test_the_segments_of_long_sound_follow_each_other(stack: Stack, whisper: Whisper) -> None:
    """The pipeline's do not: it guesses where windows begin."""
    result = stack.ask("whisper", LONG, return_timestamps=True)
    assert "".join(chunk["text"] for chunk in result["chunks"]) == result["text"]
    times = [time for chunk in result["chunks"] for time in chunk["timestamp"]]
    assert times == sorted(times)
    assert len(times) > 4


def test_a_request_for_words_leaves_the_model_as_it_was(stack: Stack, whisper: Whisper) -> None:
    """``generate`` switches the model's attention for them, and does not switch it back."""
    before = stack.ask("whisper", SHORT)
    stack.ask("whisper", SHORT, return_timestamps="word")
    assert stack.ask("whisper", SHORT)["text"] == before["text"]
    resident = next(x for x in stack.manager._cache._residents if x.key.name == "whisper")
    assert isinstance(resident.model, TransformersModel)
    assert resident.model.model.config._attn_implementation == "sdpa"


def test_different_sounds_languages_and_tasks_give_different_texts(
    stack: Stack, whisper: Whisper, ctc: Path
) -> None:
    texts = [
        stack.ask("whisper", SHORT, language="en")["text"],
        stack.ask("whisper", noise(1.5, 1), language="en")["text"],
        stack.ask("whisper", SHORT, language="fr")["text"],
        stack.ask("whisper", SHORT, language="en", task="translate")["text"],
        stack.ask("wav2vec2", SHORT)["text"],
        stack.ask("wav2vec2", noise(1.5, 1))["text"],
    ]
    assert len(set(texts)) == len(texts)


def test_the_language_that_was_found_is_told(stack: Stack, whisper: Whisper) -> None:
    found = stack.ask("whisper", SHORT)["metadata"]["language"]
    assert found in {"en", "de", "fr"}
    features = whisper.processor(SHORT, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    detected = whisper.model.detect_language(features.input_features)
    assert whisper.text(detected.tolist()) == ""
    assert whisper.processor.tokenizer.decode(detected) == f"<|{found}|>"
    assert stack.ask("whisper", SHORT, language="German")["metadata"]["language"] == "de"


def test_sampling_can_be_repeated_by_the_seed_in_the_metadata(stack: Stack) -> None:
    first = stack.ask("whisper", SHORT, do_sample=True)
    again = stack.ask("whisper", SHORT, do_sample=True, seed=first["metadata"]["seed"])
    assert again["text"] == first["text"] != stack.ask("whisper", SHORT)["text"]
    ignored = stack.ask("whisper", SHORT, do_sample=False, temperature=0.7)
    assert ignored["text"] == stack.ask("whisper", SHORT)["text"]


@pytest.mark.parametrize(
    ("sound", "options"),
    [
        pytest.param(SHORT, {}, id="greedy"),
        pytest.param(SHORT, {"return_timestamps": True}, id="segments"),
        pytest.param(SHORT, {"num_beams": 2}, id="beams"),
        pytest.param(LONG, {}, id="long"),
        pytest.param(LONG, {"max_new_tokens": 7}, id="long-cut-off"),
        pytest.param(LONG, {"max_new_tokens": 13, "return_timestamps": "word"}, id="long-words"),
        pytest.param(LONG, {"temperature": 0.9, "seed": 3}, id="long-sampling"),
    ],
)
def test_streamed_pieces_are_the_text(
    stack: Stack, whisper: Whisper, sound: NDArray[np.float32], options: dict[str, Any]
) -> None:
    pieces: list[str] = []
    result = stack.ask("whisper", sound, on_token=pieces.append, **options)
    assert "".join(pieces) == result["text"]
    assert result["text"] == stack.ask("whisper", sound, **options)["text"]
    if not options:
        assert len(pieces) > 5


def test_whisper_can_be_cancelled_at_each_token(stack: Stack, whisper: Whisper) -> None:
    token = CancelToken()
    pieces: list[str] = []

    def on_token(piece: str) -> None:
        pieces.append(piece)
        token.cancel(CancelledError("by the client"))

    with pytest.raises(CancelledError):
        stack.ask("whisper", LONG, token=token, on_token=on_token)
    assert len(pieces) == 1

    looks = CancelAfter(12)
    with pytest.raises(CancelledError):
        stack.ask("whisper", LONG, token=looks, num_beams=2)
    assert looks.looks < 16
    assert stack.ask("whisper", SHORT)["metadata"]["cache_hit"]


def test_progress_follows_the_sound(stack: Stack, whisper: Whisper) -> None:
    seen: list[tuple[int, int | None, str]] = []
    stack.ask("whisper", LONG, on_progress=lambda *args: seen.append(args[:3]))
    assert seen[-1] == (4, 4, "seconds")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert len(seen) >= 4


def test_a_whisper_that_gets_no_further_is_stopped() -> None:
    sound = DecodedAudio(LONG, SAMPLING_RATE, {})
    call = InferenceCall(Task.ASR, {}, AsrOptions(), CancelToken())
    extractor: Any = WhisperFeatureExtractor()  # type: ignore[no-untyped-call]
    progress = WhisperProgress(sound, extractor, call)
    progress(torch.tensor([[0, 430]]))
    for _ in range(5):
        progress(torch.tensor([[200, 430]]))
    with pytest.raises(InvalidInputError, match="past second 2"):
        progress(torch.tensor([[200, 430]]))


def test_requests_beside_each_other_do_not_mix(stack: Stack, whisper: Whisper) -> None:
    wanted: list[tuple[NDArray[np.float32], dict[str, Any]]] = [
        (SHORT, {}),
        (LONG, {"return_timestamps": "word"}),
        (noise(1.8, 7), {"language": "fr"}),
        (SHORT, {"return_timestamps": True}),
    ]
    alone = [stack.ask("whisper", sound, **options) for sound, options in wanted]
    together: list[dict[str, Any]] = [{}] * len(wanted)

    def ask(number: int) -> None:
        together[number] = stack.ask("whisper", wanted[number][0], **wanted[number][1])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [x["text"] for x in together] == [x["text"] for x in alone]
    assert [x.get("chunks") for x in together] == [x.get("chunks") for x in alone]


def test_a_whisper_of_one_language_takes_no_language(stack: Stack) -> None:
    directory = stack.publish("english", tiny_whisper, multilingual=False)
    direct = Whisper(directory)
    assert stack.ask("english", SHORT)["text"] == direct.text(direct.ids(SHORT))
    for option in ({"language": "en"}, {"task": "translate"}):
        with pytest.raises(InvalidInputError, match="one language") as caught:
            stack.ask("english", SHORT, **option)
        assert caught.value.field == f"options.{next(iter(option))}"


@pytest.mark.parametrize("seed", [0, 1])
def test_wav2vec2_gives_the_text_of_the_model(stack: Stack, ctc: Path, seed: int) -> None:
    sound = noise(1.7, seed)
    model: Any = AutoModelForCTC.from_pretrained(ctc)
    processor: Any = AutoProcessor.from_pretrained(ctc)  # type: ignore[no-untyped-call]
    features = processor(sound, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    with torch.no_grad():
        expected = processor.batch_decode(model(**features).logits.argmax(-1))[0]

    pieces: list[str] = []
    result = stack.ask("wav2vec2", sound, on_token=pieces.append)

    assert result["text"] == expected == "".join(pieces)
    assert len(expected) > 20
    assert result["metadata"]["chunks"] == 1


@pytest.mark.parametrize(
    ("sound", "timestamps"),
    [(SHORT, "word"), (SHORT, "char"), (VERY_LONG, "word")],
    ids=["short-words", "short-characters", "long-words"],
)
def test_wav2vec2_hears_long_sound_as_the_pipeline_does(
    stack: Stack, ctc: Path, sound: NDArray[np.float32], timestamps: str
) -> None:
    reader = pipeline("automatic-speech-recognition", model=str(ctc), device="cpu")
    expected: Any = reader(
        {"raw": sound.copy(), "sampling_rate": SAMPLING_RATE},
        chunk_length_s=30,
        stride_length_s=5,
        return_timestamps=timestamps,
    )
    result = stack.ask("wav2vec2", sound, return_timestamps=timestamps)
    assert result["text"] == expected["text"]
    assert result["chunks"] == json.loads(json.dumps(expected["chunks"]))
    assert result["metadata"]["chunks"] == (4 if sound is VERY_LONG else 1)


def test_wav2vec2_can_be_cancelled_at_each_chunk(stack: Stack, ctc: Path) -> None:
    seen: list[int] = []
    token = CancelToken()

    def on_progress(completed: int, total: int | None, unit: str, message: str) -> None:
        if unit == "chunks":
            seen.append(completed)
        if seen == [0, 1]:
            token.cancel(CancelledError("by the client"))

    with pytest.raises(CancelledError):
        stack.ask("wav2vec2", VERY_LONG, token=token, on_progress=on_progress)
    assert seen == [0, 1]


def test_a_model_that_lacks_what_only_training_needs_is_served(stack: Stack, ctc: Path) -> None:
    directory = stack.publish("published", tiny_wav2vec2_ctc)
    file = directory / "model.safetensors"
    weights = load_file(file)
    del weights["wav2vec2.masked_spec_embed"]
    save_file(weights, file, metadata={"format": "pt"})
    assert stack.ask("published", SHORT)["text"] == stack.ask("wav2vec2", SHORT)["text"]


@pytest.mark.parametrize(
    "make", [tiny_ast, tiny_wav2vec2_classifier], ids=["ast", "wav2vec2-classifier"]
)
def test_labels_are_those_of_the_model(stack: Stack, make: Callable[[Path], Path]) -> None:
    directory = stack.publish(make.__name__, make, Task.AUDIO_CLASSIFICATION)
    model: Any = AutoModelForAudioClassification.from_pretrained(directory)
    extractor = AutoFeatureExtractor.from_pretrained(directory)  # type: ignore[no-untyped-call]
    found = []
    for sound in (SHORT, noise(0.9, 4), LONG):
        features = extractor(sound, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        with torch.no_grad():
            scores = model(**features).logits.softmax(-1)[0]
        expected = sorted(zip(scores.tolist(), LABELS, strict=True), reverse=True)

        result = stack.classify(make.__name__, sound, top_k=7)

        assert [(x["score"], x["label"]) for x in result["labels"]] == expected
        assert stack.classify(make.__name__, sound)["labels"] == result["labels"][:5]
        assert stack.classify(make.__name__, sound, top_k=100)["labels"] == result["labels"]
        assert json.loads(json.dumps(result))["metadata"]["sampling_rate"] == SAMPLING_RATE
        found.append(result["labels"])
    assert found[0] != found[1] != found[2]


@pytest.mark.parametrize(
    ("problem", "function"),
    [("multi_label_classification", "sigmoid"), ("regression", "none"), (None, "softmax")],
)
def test_scores_fit_the_problem_that_the_model_solves(
    stack: Stack, problem: str | None, function: str
) -> None:
    name = f"problem-{problem}"
    directory = stack.publish(
        name, tiny_wav2vec2_classifier, Task.AUDIO_CLASSIFICATION, problem_type=problem
    )
    classifier = pipeline("audio-classification", model=str(directory), device="cpu")
    expected: Any = classifier({"raw": SHORT.copy(), "sampling_rate": SAMPLING_RATE}, top_k=3)
    result = stack.classify(name, SHORT, top_k=3)
    assert result["labels"] == [{"label": x["label"], "score": x["score"]} for x in expected]
    assert result["metadata"]["function_to_apply"] == function
    chosen = stack.classify(name, SHORT, top_k=3, function_to_apply="sigmoid")
    assert all(0 < x["score"] < 1 for x in chosen["labels"])


def test_sound_of_another_rate_is_resampled(stack: Stack, whisper: Whisper) -> None:
    data = {"audio": data_uri(SHORT[::2], SAMPLING_RATE // 2)}
    metadata = stack.manager.infer("asr", "transformers", "whisper", data)["metadata"]
    assert metadata["sampling_rate"] == SAMPLING_RATE
    assert metadata["audio"]["sampling_rate"] == SAMPLING_RATE // 2
    assert metadata["duration_seconds"] == 1.5


@pytest.mark.parametrize(
    ("model", "options", "field"),
    [
        ("whisper", {"return_timestamps": "char"}, "options.return_timestamps"),
        ("whisper", {"language": "klingon"}, "options.language"),
        ("whisper", {"language": "it"}, "options.language"),
        ("whisper", {"stop": "x"}, "options.stop"),
        ("whisper", {"task": "sing"}, "options.task"),
        ("whisper", {"do_sample": True, "temperature": 0}, "options.temperature"),
        ("whisper", {"max_new_tokens": 1000}, "options"),
        ("whisper", {"lenguage": "en"}, "options.lenguage"),
        ("wav2vec2", {"return_timestamps": True}, "options.return_timestamps"),
        ("wav2vec2", {"language": "en"}, "options.language"),
        ("wav2vec2", {"task": "translate"}, "options.task"),
        ("wav2vec2", {"num_beams": 2}, "options.num_beams"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_named(
    stack: Stack, whisper: Whisper, ctc: Path, model: str, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stack.ask(model, SHORT, **options)
    assert caught.value.field == field


@pytest.mark.parametrize("data", [{}, {"audio": 3}, {"audio": ""}, {"sound": "x"}])
def test_what_is_no_sound_is_refused(stack: Stack, whisper: Whisper, data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        stack.manager.infer("asr", "transformers", "whisper", data)
    assert str(caught.value.field).startswith("data.")


@pytest.mark.parametrize("model", ["whisper", "wav2vec2"])
def test_a_sound_too_short_to_hear_is_refused(
    stack: Stack, whisper: Whisper, ctc: Path, model: str
) -> None:
    with pytest.raises(InvalidInputError, match="too short") as caught:
        stack.ask(model, SHORT[:200])
    assert caught.value.field == "data.audio"


def test_a_model_that_does_not_hear_is_refused(stack: Stack, ctc: Path) -> None:
    stack.publish("llama", tiny_llama)
    with pytest.raises(UnsupportedTaskError, match="cannot do asr"):
        stack.ask("llama", SHORT)
    with pytest.raises(UnsupportedTaskError, match="cannot do audio-classification"):
        stack.classify("wav2vec2", SHORT)
