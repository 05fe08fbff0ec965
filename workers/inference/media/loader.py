"""From the value of a request's field to a decoded medium: what handlers call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_END
from typing import Any, BinaryIO

from shared.cancellation import CancelToken
from shared.media.references import parse_reference
from shared.media.sources import MediaSources
from shared.media.types import MediaKind, kind_of
from shared.settings import MediaSettings
from workers.inference.media.audio import DecodedAudio, decode_audio
from workers.inference.media.documents import DecodedDocument, decode_document
from workers.inference.media.images import DecodedImage, decode_image
from workers.inference.media.sources import opened
from workers.inference.media.video import DecodedVideo, decode_video


@dataclass(frozen=True)
class OpenedMedia:
    """A medium at hand: a seekable file, gone when it is closed."""

    file: BinaryIO
    media_type: str
    kind: MediaKind
    size_bytes: int


class MediaLoader:
    """Opens and decodes media; cheap to make, safe to use from several threads.

    A value is a ``file_id`` of ``POST /files``, a ``data:`` URI, an http(s) URL or a path under a
    configured media root. What is wrong with it is an ``InvalidInputError`` or ``NotFoundError``
    on ``field``, such as ``data.image``. Results carry the medium's ``metadata`` under
    ``metadata.<name>``, such as ``metadata.image``.
    """

    def __init__(self, settings: MediaSettings) -> None:
        self._settings = settings
        self._sources = MediaSources(settings)

    def check(self, value: Any, field: str) -> None:
        """Refuse what cannot be a medium by its form alone; for ``validate_input``."""
        parse_reference(value, field)

    @contextmanager
    def open(
        self, value: Any, field: str, token: CancelToken | None = None
    ) -> Iterator[OpenedMedia]:
        """Yield the medium that the value names, as a file."""
        with (
            self._sources.open(value, field, token) as source,
            opened(source, field) as (file, media_type),
        ):
            size_bytes = file.seek(0, SEEK_END)
            file.seek(0)
            yield OpenedMedia(file, media_type, kind_of(media_type), size_bytes)

    def image(self, value: Any, field: str, token: CancelToken | None = None) -> DecodedImage:
        """Decode the image that the value names."""
        with self.open(value, field, token) as media:
            return decode_image(media.file, limits=self._settings, field=field)

    def audio(
        self, value: Any, field: str, sampling_rate: int, token: CancelToken | None = None
    ) -> DecodedAudio:
        """Decode the sound that the value names."""
        with self.open(value, field, token) as media:
            return decode_audio(
                media.file, sampling_rate, limits=self._settings, field=field, token=token
            )

    def video(
        self, value: Any, field: str, frames: int, token: CancelToken | None = None
    ) -> DecodedVideo:
        """Decode so many frames of the video that the value names."""
        with self.open(value, field, token) as media:
            return decode_video(media.file, frames, limits=self._settings, field=field, token=token)

    def document(
        self,
        value: Any,
        field: str,
        page: int | None = None,
        token: CancelToken | None = None,
    ) -> DecodedDocument:
        """Decode a page (counted from 1) of the document that the value names, or all pages."""
        with self.open(value, field, token) as media:
            return decode_document(
                media.file, limits=self._settings, page=page, field=field, token=token
            )
