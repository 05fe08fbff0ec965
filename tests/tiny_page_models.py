"""Models that read pages, of a few hundred kilobytes, made on the spot: nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tokenizers import processors

from tests.tiny_models import byte_level_tokenizer, vocabulary_of
from tests.tiny_vision_models import CONTEXT_TOKENS, save_scaled, special_tokenizer, t

_SIZE = {"height": 32, "width": 32}
_LAYERS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
#: Of models that were trained to answer questions, and of one that writes down receipts.
QUESTION_TOKENS = ("<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>")
RECEIPT_TOKENS = ("<s_iitcdip>", "<s_synthdog>", "<s_total>", "</s_total>", "<s_receipt>")


def tiny_trocr(directory: Path) -> Path:
    """Save a TrOCR, of ViT and its own decoder."""
    tokenizer = byte_level_tokenizer()
    decoder = t.TrOCRConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        cross_attention_hidden_size=32,
    )
    encoder = t.ViTConfig(**_LAYERS, image_size=32, patch_size=8)
    processor = t.TrOCRProcessor(
        image_processor=t.ViTImageProcessor(size=_SIZE), tokenizer=tokenizer
    )
    save_scaled(directory, lambda: _encoder_decoder(encoder, decoder, tokenizer), processor)
    weights = load_file(directory / "model.safetensors")
    # Published ones lack what sums up the image.
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def tiny_donut(directory: Path, tokens: tuple[str, ...] = QUESTION_TOKENS) -> Path:
    """Save a Donut, of Swin and BART's decoder, with the tokens of its task.

    As in published models, not all of them are special: what closes something is not.
    """
    tokenizer = special_tokenizer(*(token for token in tokens if "/" not in token))
    tokenizer.add_tokens([token for token in tokens if "/" in token])
    decoder = t.MBartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        is_decoder=True,
        add_cross_attention=True,
        is_encoder_decoder=False,
        tie_word_embeddings=False,
    )
    encoder = t.DonutSwinConfig(
        image_size=[32, 32],
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
    )
    processor = t.DonutProcessor(
        image_processor=t.DonutImageProcessor(size=_SIZE), tokenizer=tokenizer
    )
    return save_scaled(directory, lambda: _encoder_decoder(encoder, decoder, tokenizer), processor)


def tiny_layoutlmv3(directory: Path) -> Path:
    """Save a LayoutLMv3 that finds answers."""
    core = byte_level_tokenizer()
    bpe = json.loads(core.backend_tokenizer.to_str())["model"]
    tokenizer = t.LayoutLMv3TokenizerFast(
        vocab=bpe["vocab"], merges=[tuple(pair) for pair in bpe["merges"]], model_max_length=64
    )
    config = t.LayoutLMv3Config(
        **_LAYERS,
        **vocabulary_of(tokenizer),
        max_position_embeddings=80,
        input_size=32,
        patch_size=8,
        coordinate_size=5,
        shape_size=6,
        num_labels=2,
    )
    processor = t.LayoutLMv3Processor(
        image_processor=t.LayoutLMv3ImageProcessor(size=_SIZE, apply_ocr=False),
        tokenizer=tokenizer,
    )
    return save_scaled(directory, lambda: t.LayoutLMv3ForQuestionAnswering(config), processor)


def tiny_layoutlm(directory: Path) -> Path:
    """Save a LayoutLM that finds answers; it knows words and places and looks at nothing."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "<cls>", "sep_token": "<sep>"})
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(
        ("<sep>", sep), ("<cls>", cls)
    )
    tokenizer.model_max_length = 64
    config = t.LayoutLMConfig(
        **_LAYERS,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=2,
    )
    return save_scaled(directory, lambda: t.LayoutLMForQuestionAnswering(config), tokenizer)


def _encoder_decoder(encoder: Any, decoder: Any, tokenizer: Any) -> Any:
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.tie_word_embeddings = False
    model = t.VisionEncoderDecoderModel(config=config)
    model.generation_config.update(
        decoder_start_token_id=tokenizer.bos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return model
