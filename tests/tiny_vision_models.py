"""Models that see, of a few hundred kilobytes, made on the spot: nothing is downloaded.

As those of ``tiny_models``: the same seed gives the same files, and the answers depend on what is
seen and asked, because the weights are eight times as large as usual.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.tiny_models import byte_level_tokenizer, vocabulary_of

#: Its annotations demand more than its classes do.
t: Any = transformers
CONTEXT_TOKENS = 512

#: As the templates of models that see have it: content is a list of parts.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% elif part.type == 'video' %}<video>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_QWEN_TEMPLATE = CHAT_TEMPLATE.replace(
    "<image>", "<|vision_start|><|image_pad|><|vision_end|>"
).replace("<video>", "<|vision_start|><|video_pad|><|vision_end|>")

#: As Gemma 3's: it begins with the first token itself, and takes content in both ways.
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content | trim }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<start_of_image>{% else %}{{ part.text | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
_SQUARE = {"height": 32, "width": 32}


def tiny_llava(directory: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Save a LLaVA, of CLIP and Llama."""
    tokenizer = special_tokenizer("<image>")
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**_VISION, projection_dim=32),
        text_config=t.LlamaConfig(**_TEXT, **vocabulary_of(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = t.LlavaProcessor(
        image_processor=t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_SQUARE),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
    return save_scaled(directory, lambda: t.LlavaForConditionalGeneration(config), processor)


def tiny_smolvlm(directory: Path) -> Path:
    """Save a SmolVLM, which takes images in tiles, and videos with the time of each frame."""
    names = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tokenizer = special_tokenizer(*names, "<|im_start|>", "<video>")
    config = t.SmolVLMConfig(
        vision_config={**_VISION, "model_type": "smolvlm_vision"},
        text_config=t.LlamaConfig(**_TEXT, **vocabulary_of(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    edges: dict[str, Any] = {
        "size": {"longest_edge": 32},
        "max_image_size": {"longest_edge": 32},
    }
    processor = t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(**edges),
        tokenizer=tokenizer,
        video_processor=t.SmolVLMVideoProcessor(
            **edges, video_sampling={"max_frames": 8, "fps": 1, "video_size": edges["size"]}
        ),
        image_seq_len=4,
        chat_template=CHAT_TEMPLATE,
    )
    return save_scaled(directory, lambda: t.SmolVLMForConditionalGeneration(config), processor)


def tiny_qwen2_vl(directory: Path) -> Path:
    """Save a Qwen2-VL, which takes images and videos of any size."""
    tokenizer = special_tokenizer(
        "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
            ("image", "image_pad"),
            ("video", "video_pad"),
        )
    }
    config = t.Qwen2VLConfig(
        text_config={
            **_TEXT,
            **vocabulary_of(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4},
        **ids,
    )
    pixels = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}
    processor = t.Qwen2VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=t.Qwen2VLVideoProcessor(**pixels, cap_pixels_per_frame=False),
        chat_template=_QWEN_TEMPLATE,
    )
    return save_scaled(directory, lambda: t.Qwen2VLForConditionalGeneration(config), processor)


def tiny_gemma3(directory: Path) -> Path:
    """Save a Gemma 3, some of whose layers look back only a little."""
    names = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>"}
    names["eoi_token"] = "<end_of_image>"
    tokenizer = special_tokenizer("<start_of_turn>", "<end_of_turn>", *names.values())
    tokenizer._set_model_specific_special_tokens(special_tokens=names)
    config = t.Gemma3Config(
        text_config={**_TEXT, **vocabulary_of(tokenizer), "head_dim": 8, "sliding_window": 16},
        tie_word_embeddings=False,
        vision_config={**_VISION, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=16,
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    processor = t.Gemma3Processor(
        image_processor=t.Gemma3ImageProcessor(size=_SQUARE),
        tokenizer=tokenizer,
        image_seq_length=16,
        chat_template=_GEMMA_TEMPLATE,
    )
    return save_scaled(directory, lambda: t.Gemma3ForConditionalGeneration(config), processor)


def tiny_llava_next_video(directory: Path) -> Path:
    """Save a LLaVA-NeXT-Video."""
    tokenizer = special_tokenizer("<image>", "<video>")
    config = t.LlavaNextVideoConfig(
        vision_config=t.CLIPVisionConfig(**_VISION, projection_dim=32),
        text_config=t.LlamaConfig(**_TEXT, **vocabulary_of(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32]],
        image_seq_length=16,
        video_seq_length=4,
        spatial_pool_stride=2,
    )
    resized: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": _SQUARE}
    processor = t.LlavaNextVideoProcessor(
        video_processor=t.LlavaNextVideoVideoProcessor(**resized),
        image_processor=t.LlavaNextImageProcessor(**resized, image_grid_pinpoints=[[32, 32]]),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return save_scaled(
        directory, lambda: t.LlavaNextVideoForConditionalGeneration(config), processor
    )


def tiny_got_ocr(directory: Path) -> Path:
    """Save a GOT-OCR, whose image is 256 tokens and whose processor knows its prompt."""
    tokenizer = special_tokenizer("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")
    config = t.GotOcr2Config(
        vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 128,
            "patch_size": 2,
            "global_attn_indexes": [],
            "mlp_dim": 64,
            "initializer_range": 0.02,
        },
        text_config={
            **_TEXT,
            **vocabulary_of(tokenizer),
            "model_type": "qwen2",
            "tie_word_embeddings": False,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<imgpad>"),
        tie_word_embeddings=False,
    )
    images = t.GotOcr2ImageProcessor(size={"height": 128, "width": 128})
    processor = t.GotOcr2Processor(image_processor=images, tokenizer=tokenizer)
    return save_scaled(directory, lambda: t.GotOcr2ForConditionalGeneration(config), processor)


def special_tokenizer(*added: str) -> Any:
    """Return the byte-level tokenizer with more special tokens."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    return tokenizer


def save_scaled(directory: Path, make: Callable[[], Any], processor: Any, *, seed: int = 0) -> Path:
    """Make the model with weights eight times as large as usual; save it beside its processor."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = make()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name.lower():
                weight.mul_(8)
        if (head := model.get_output_embeddings()) is not None:
            # Never ends by itself, and never says a special token.
            head.weight[getattr(processor, "tokenizer", processor).all_special_ids] = 0
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
