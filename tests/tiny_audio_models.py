"""Models that hear, of a few hundred kilobytes, made on the spot: nothing is downloaded.

As those of ``tiny_models``: the same seed gives the same files, and the answers depend on what is
heard. Whisper's window is two seconds instead of thirty, so that long audio need not be long.
"""

import io
import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from numpy.typing import NDArray

from tests.tiny_models import byte_level_tokenizer

#: Half of its constructors have no types.
t: Any = transformers

SAMPLING_RATE = 16_000
WINDOW_SECONDS = 2
WHISPER_POSITIONS = 30
LANGUAGES = ("en", "de", "fr")
LABELS = ("bell", "dog", "drum", "rain", "speech", "train", "wind")

_WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (10, 8, 8),
    "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    # As the models that take an attention mask have it.
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
_TOKENS = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


def noise(seconds: float, seed: int) -> NDArray[np.float32]:
    """Return a sound that is now loud and now soft, with the samples that a WAV file keeps."""
    random = np.random.default_rng(seed)
    samples = round(seconds * SAMPLING_RATE)
    steps = np.arange(0, samples + 2000, 2000)
    loudness = np.interp(np.arange(samples), steps, random.random(len(steps)))
    waveform = np.round(random.uniform(-1, 1, samples) * loudness * 2**15) / 2**15
    return waveform.clip(-1, 1 - 2**-15).astype(np.float32)


def data_uri(waveform: NDArray[np.float32], sampling_rate: int = SAMPLING_RATE) -> str:
    """Return a sound as a request carries it."""
    file = io.BytesIO()
    soundfile.write(file, waveform, sampling_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{b64encode(file.getvalue()).decode()}"


def tiny_whisper(directory: Path, *, seed: int = 1, multilingual: bool = True) -> Path:
    """Save a Whisper that knows languages and can tell the time."""
    tokenizer = _whisper_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = t.WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_source_positions=WINDOW_SECONDS * 50,
        max_target_positions=WHISPER_POSITIONS,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|endoftext|>"),
        pad_token_id=ids("<|endoftext|>"),
        begin_suppress_tokens=None,
        suppress_tokens=None,
        tie_word_embeddings=False,
    )
    model = _enlarged(lambda: t.WhisperForConditionalGeneration(config), seed)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            for part in ("q_proj", "k_proj", "v_proj"):
                # Else all moments of the sound are heard alike, and none makes a difference.
                getattr(layer.encoder_attn, part).weight.mul_(6)
        said = model.proj_out.weight
        said[[*tokenizer.all_special_ids, *_broken(tokenizer)]] = 0
        said[ids("<|0.00|>") :] *= 0.5  # else it only tells the time
    languages = {
        "lang_to_id": {f"<|{name}|>": ids(f"<|{name}|>") for name in LANGUAGES},
        "task_to_id": {name: ids(f"<|{name}|>") for name in ("transcribe", "translate")},
    }
    model.generation_config = t.GenerationConfig(
        **{name: getattr(config, name) for name in _TOKENS},
        max_length=config.max_target_positions,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        alignment_heads=[[0, 1], [1, 2]],
        is_multilingual=multilingual,
        return_timestamps=False,  # as published ones have it
        **(languages if multilingual else {}),
    )
    extractor = t.WhisperFeatureExtractor(feature_size=80, chunk_length=WINDOW_SECONDS)
    return _save(directory, model, t.WhisperProcessor(extractor, tokenizer))


def tiny_wav2vec2_ctc(directory: Path, *, seed: int = 0) -> Path:
    """Save a Wav2Vec2 that spells what it hears."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "vocab.json"
    file.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    tokenizer = t.Wav2Vec2CTCTokenizer(str(file))
    config = t.Wav2Vec2Config(**_WAVE, vocab_size=len(letters), pad_token_id=0)
    model = _enlarged(lambda: t.Wav2Vec2ForCTC(config), seed)
    with torch.no_grad():
        model.lm_head.weight[1:4] = 0
    return _save(directory, model, t.Wav2Vec2Processor(_wave_extractor(), tokenizer))


def tiny_wav2vec2_classifier(directory: Path, *, seed: int = 0, **config: Any) -> Path:
    """Save a Wav2Vec2 that tells sounds apart."""
    labelled = t.Wav2Vec2Config(**_WAVE, **_labels(), classifier_proj_size=16, **config)
    model = _enlarged(lambda: t.Wav2Vec2ForSequenceClassification(labelled), seed)
    return _save(directory, model, _wave_extractor())


def tiny_ast(directory: Path, *, seed: int = 0) -> Path:
    """Save an audio spectrogram transformer, which hears one second."""
    shape: dict[str, Any] = {"num_mel_bins": 32, "max_length": 98}
    config = t.ASTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        **shape,
        **_labels(),
    )
    model = _enlarged(lambda: t.ASTForAudioClassification(config), seed)
    return _save(directory, model, t.ASTFeatureExtractor(**shape))


def _whisper_tokenizer() -> Any:
    """Return a tokenizer with Whisper's special tokens, in their order."""
    trained = json.loads(byte_level_tokenizer(300).backend_tokenizer.to_str())["model"]
    words = [token for token in trained["vocab"] if not token.startswith("<")]
    tokenizer = t.WhisperTokenizer(
        vocab={token: number for number, token in enumerate(words)},
        merges=[tuple(merge) for merge in trained["merges"]],
    )
    special = ["startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm"]
    special += ["startofprev", "nospeech", "notimestamps"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{x}|>" for x in special]})
    tokenizer.add_tokens([f"<|{x / 50:.2f}|>" for x in range(WINDOW_SECONDS * 50 + 1)])
    return tokenizer


def _broken(tokenizer: Any) -> Iterable[int]:
    """Return the tokens that are parts of characters; a text of only these could not be read."""
    return (i for i in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([i]))


def _wave_extractor() -> Any:
    return t.Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=True)


def _labels() -> dict[str, Any]:
    names = dict(enumerate(LABELS))
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def _enlarged(make: Callable[[], Any], seed: int) -> Any:
    """Return a model with weights eight times as large as usual."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(8)
    return model.eval()


def _save(directory: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
