"""From a value that names a medium to the medium itself, wherever it is."""

import tempfile
from io import BytesIO
from typing import BinaryIO, cast

from shared.cancellation import CancelToken
from shared.media.errors import too_large
from shared.media.files import FileStore
from shared.media.references import (
    DataReference,
    FileReference,
    UrlReference,
    parse_reference,
)
from shared.media.roots import MediaRoots
from shared.media.web import WebMedia
from shared.settings import MediaSettings


class MediaSources:
    """Opens what requests name, within the operator's limits."""

    def __init__(self, settings: MediaSettings, web: WebMedia | None = None) -> None:
        self._settings = settings
        self._files = FileStore(settings)
        self._roots = MediaRoots(settings.roots)
        self._web = web or WebMedia(settings)

    def open(self, value: object, field: str, token: CancelToken | None = None) -> BinaryIO:
        """Return a medium as a seekable file at its start; closed, it leaves nothing behind."""
        reference = parse_reference(value, field)
        if isinstance(reference, FileReference):
            return self._files.open(reference.file_id, field)
        if isinstance(reference, DataReference):
            return BytesIO(reference.decode(self._settings.max_bytes, field))
        if isinstance(reference, UrlReference):
            return self._fetched(reference.url, field, token)
        return self._under_a_root(reference.path, field)

    def _fetched(self, url: str, field: str, token: CancelToken | None) -> BinaryIO:
        # Without a name, so that no crash can leave it behind.
        copy = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            self._web.fetch(url, copy, field, token)
        except BaseException:
            copy.close()
            raise
        copy.seek(0)
        return copy

    def _under_a_root(self, path: str, field: str) -> BinaryIO:
        file = self._roots.open(path, field)
        size_bytes, limit = file.seek(0, 2), self._settings.max_bytes
        if size_bytes > limit:
            file.close()
            raise too_large(f"the file has {size_bytes} bytes; at most {limit} are taken", field)
        file.seek(0)
        return file
