"""Inference: models in memory, and the media that they are asked about."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.settings.group import MIB, Group


class InferenceSettings(Group):
    """Models in memory."""

    section = "inference"
    model_config = SettingsConfigDict(env_prefix="INFERENCE_")

    device: str = Field(
        "auto",
        description="`auto` (the first GPU, else the CPU), `cpu`, `cuda` or `cuda:N`; "
        "each further GPU has a worker of its own: `python -m workers gpu --device cuda:1`.",
    )
    cpu_fallback: bool = Field(
        True, description="Models too large for the GPU run on the CPU; so do all without a GPU."
    )
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="`auto` (as the model was saved), `bf16`, `fp16` or `fp32`."
    )
    cache_max_bytes: int = Field(
        0,
        ge=0,
        description="Memory for warm models on the worker's device; 0: four fifths of what is free "
        "at the start. Beside a GPU, models on the CPU may take four fifths of what is free there.",
    )
    cache_max_models: int = Field(8, ge=1, description="The most warm models.")
    wait_seconds: float = Field(
        60.0, ge=0, description="How long a load may wait for models in use to end."
    )
    idle_seconds: float = Field(
        1800.0,
        gt=0,
        description="A model that nobody used for this long is unloaded, unless it has priority.",
    )
    preload: bool = Field(
        True, description="A worker loads the priority-one models in production when it starts."
    )
    max_new_tokens: int = Field(
        512, ge=1, description="Tokens generated at most where the request does not say."
    )
    max_thinking_tokens: int = Field(
        2048,
        ge=0,
        description="Tokens added to `INFERENCE_MAX_NEW_TOKENS` for a model that knows the tags of "
        "thoughts, unless its prompt turns thinking off.",
    )
    max_seconds: float = Field(
        600.0, gt=0, description="Deadline of an inference whose request does not say."
    )

    def default_tokens(self, *, thinks: bool) -> int:
        """Return how many tokens are generated at most where the request does not say."""
        return self.max_new_tokens + (self.max_thinking_tokens if thinks else 0)


class MediaSettings(Group):
    """Images, audio, video and documents that inference is asked about."""

    section = "media"
    model_config = SettingsConfigDict(env_prefix="MEDIA_")

    files_url: str = Field(
        "data/files",
        description="Where uploaded files are kept: a directory that API and GPU workers share, or "
        "any address that fsspec knows, such as `s3://bucket/files`.",
    )
    files_kept_seconds: float = Field(
        7 * 86400.0, gt=0, description="Uploaded files are deleted after this time."
    )
    roots: tuple[Path, ...] = Field(
        (),
        description="Directories whose files requests may name by path, as a JSON list; none if "
        "empty.",
    )
    max_bytes: int = Field(
        512 * MIB, gt=0, description="The largest upload, and the largest medium from elsewhere."
    )
    url_private_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts, as a JSON list of `name` or `name:port`, that media may be fetched "
        "from although their addresses are not public.",
    )
    url_timeout_seconds: float = Field(
        10.0, gt=0, description="A server of media that gives nothing for this long is dropped."
    )
    url_max_seconds: float = Field(
        120.0, gt=0, description="Fetching a medium takes at most this long."
    )
    max_image_pixels: int = Field(50_000_000, gt=0, description="The largest image.")
    max_audio_seconds: float = Field(3600.0, gt=0, description="The longest audio.")
    max_video_seconds: float = Field(600.0, gt=0, description="The longest video.")
    max_video_pixels: int = Field(10_000_000, gt=0, description="The largest frame of a video.")
    max_video_frames: int = Field(64, ge=1, description="Frames looked at of one video.")
    max_document_pages: int = Field(20, ge=1, description="Pages looked at of one document.")
    document_dpi: int = Field(144, ge=36, le=600, description="Resolution of a document's pages.")
