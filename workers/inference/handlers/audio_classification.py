"""Audio classification on transformers: a sound in, its labels and their scores out."""

from dataclasses import dataclass
from typing import Any, ClassVar

from shared.tasks import AudioClassificationOptions, Options
from workers.inference.calls import InferenceCall
from workers.inference.engines.transformers_engine import Forward, TransformersModel
from workers.inference.handlers.audio import AudioHandler, features_of, sound_metadata
from workers.inference.media import DecodedAudio

#: What makes scores of a model's numbers, by the problem that its configuration says it solves.
_BY_PROBLEM = {"regression": "none", "multi_label_classification": "sigmoid"}


@dataclass(frozen=True)
class _Question(Forward):
    """A call of the model, and the sound that it is about."""

    sound: DecodedAudio


class AudioClassificationHandler(AudioHandler):
    """Gives the scores that the model gives for the whole sound at once."""

    options_model: ClassVar[type[Options]] = AudioClassificationOptions

    def preprocess(self, model: TransformersModel, call: InferenceCall) -> _Question:
        """Decode the sound, and turn it into the model's features."""
        sound = self.hear(model.processor, call)
        features = features_of(model.processor, sound.waveform)
        return _Question(batches=(features,), keep=lambda output: output.logits[0], sound=sound)

    def postprocess(
        self, model: TransformersModel, call: InferenceCall, inputs: Any, output: Any
    ) -> dict[str, Any]:
        """Return the labels with the highest scores, highest first."""
        options = call.options
        assert isinstance(options, AudioClassificationOptions)  # noqa: S101 - parsed by options_model
        config = model.model.config
        function = options.function_to_apply or _BY_PROBLEM.get(config.problem_type, "softmax")
        logits = output[0]
        scored = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}
        scores, numbers = scored[function].topk(min(options.top_k, config.num_labels))
        return {
            "labels": [
                {"label": config.id2label[number], "score": score}
                for score, number in zip(scores.tolist(), numbers.tolist(), strict=True)
            ],
            "metadata": {**sound_metadata(inputs.sound), "function_to_apply": function},
        }
