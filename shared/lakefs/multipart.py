"""A multipart upload by presigned links."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from shared.errors import LifecycleError
from shared.lakefs.control import Control


class MultipartUpload:
    """Begun when entered, given up when left by an error; its parts count from 1."""

    def __init__(self, control: Control, repo: str, branch: str, path: str, *, parts: int) -> None:
        self._control = control
        self._object = (repo, branch, path)
        self._parts = parts

    def __enter__(self) -> Self:
        api = self._control.multipart
        begun = self._control.call(
            api.create_presign_multipart_upload, *self._object, parts=self._parts
        )
        repo, branch, path = self._object
        self._upload = (repo, branch, str(begun.upload_id), path)
        self._place = {"physical_address": str(begun.physical_address)}
        self._links = dict(enumerate(begun.presigned_urls or (), 1))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        api = self._control.multipart
        # What stays behind when this fails too, the bucket's own rules remove.
        with suppress(LifecycleError):
            self._control.call(
                api.abort_presign_multipart_upload,
                *self._upload,
                abort_presign_multipart_upload=self._place,
            )

    def link(self, number: int) -> str:
        """Return a link for a part: the first is as old as the upload, further ones are new."""
        link = self._links.pop(number, None)
        if link is None:
            api = self._control.multipart
            answer = self._control.call(api.upload_part, *self._upload, number, self._place)
            link = answer.presigned_url
        return str(link)

    def complete(self, etags: Sequence[str], metadata: Mapping[str, str], media: str) -> None:
        """Make the object out of its parts, given by what the store called them."""
        parts = [{"part_number": number, "etag": etag} for number, etag in enumerate(etags, 1)]
        self._control.call(
            self._control.multipart.complete_presign_multipart_upload,
            *self._upload,
            complete_presign_multipart_upload=self._place
            | {"parts": parts, "user_metadata": dict(metadata), "content_type": media},
        )
