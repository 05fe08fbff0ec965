"""What turns sound into a speech model's input, and its output into text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transformers import AutoFeatureExtractor, AutoTokenizer


@dataclass(frozen=True)
class SpeechProcessor:
    """The two halves of a processor.

    Loaded one by one, as transformers' own pipeline does: as a whole, those of models that come
    with a language model need a package for it, and those that name no class are not found.
    """

    feature_extractor: Any
    tokenizer: Any

    @classmethod
    def from_pretrained(cls, directory: Path, **options: Any) -> Self:
        """Load both; the options are transformers'."""
        return cls(
            AutoFeatureExtractor.from_pretrained(directory, **options),  # type: ignore[no-untyped-call]
            AutoTokenizer.from_pretrained(directory, **options),
        )
