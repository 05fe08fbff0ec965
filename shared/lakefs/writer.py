"""Files of this host to objects of lakeFS, streamed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from shared.cancellation import CancelToken
from shared.errors import DigestMismatchError
from shared.interruptible import interrupted_by, interruptible
from shared.lakefs.body import Body
from shared.lakefs.control import Control
from shared.lakefs.errors import object_store_unavailable
from shared.lakefs.multipart import MultipartUpload
from shared.retries import HOLD, HOLD_PARTS

#: Larger files go up in parts of this size, where the store takes parts.
PART_BYTES = 64 << 20
MAX_PARTS = 10_000
#: S3 takes no more in one PUT; lakeFS itself, on the API's way, then sends parts to S3.
SINGLE_PUT_BYTES = 5 << 30

OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class _Target:
    repo: str
    branch: str
    path: str

    @property
    def address(self) -> tuple[str, str, str]:
        return self.repo, self.branch, self.path


class Writer:
    """Writes objects with their ``sha256`` as user metadata.

    httpx and not the SDK: its ``upload_object`` reads the whole file to build a form
    (``ApiClient.files_parameters``: ``filedata = f.read()``).
    """

    def __init__(self, http: httpx.Client, links: httpx.Client, control: Control) -> None:
        """Take a client of lakeFS and one, without credentials, for presigned links."""
        self._http = http
        self._links = links
        self._control = control
        self.part_bytes = PART_BYTES

    def put(
        self,
        repo: str,
        branch: str,
        path: str,
        source: Path,
        *,
        sha256: str,
        token: CancelToken,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Upload a file; ``on_bytes`` gets negative sizes for what must be sent again."""
        body = Body(source, source.stat().st_size, sha256, token, on_bytes)
        if not body.size_bytes and sha256 != hashlib.sha256().hexdigest():
            raise DigestMismatchError(f"{source.name} changed since it was verified")
        target = _Target(repo, branch, path)
        with interrupted_by(token):
            self._send(target, body)

    def _send(self, target: _Target, body: Body) -> None:
        """Choose the way that the store behind lakeFS offers for a file of this size."""
        storage = self._control.storage
        if storage.pre_sign_multipart_upload and body.size_bytes > self.part_bytes:
            self._in_parts(target, body)
        elif storage.pre_sign_support and body.size_bytes <= SINGLE_PUT_BYTES:
            HOLD.on(lambda: self._by_link(target, body), body.token)
        else:
            HOLD.on(lambda: self._through_api(target, body), body.token)

    def _through_api(self, target: _Target, body: Body) -> None:
        post = partial(
            self._http.post,
            f"/repositories/{target.repo}/branches/{target.branch}/objects",
            params={"path": target.path},
            content=body.chunks(0, body.size_bytes),
            headers=_octets(body.size_bytes) | {"x-lakefs-meta-sha256": body.sha256},
        )
        with self._control.answers.translated():
            response = interruptible(post)
        self._control.answers.check(response)

    def _by_link(self, target: _Target, body: Body) -> None:
        staging, call = self._control.staging, self._control.call
        place = call(staging.get_physical_address, *target.address, presign=True)
        etag = self._put(str(place.presigned_url), body, 0, body.size_bytes)
        linked = {
            "staging": place,
            "checksum": etag,
            "size_bytes": body.size_bytes,
            "user_metadata": {"sha256": body.sha256},
            "content_type": OCTETS,
        }
        call(staging.link_physical_address, *target.address, linked)

    def _in_parts(self, target: _Target, body: Body) -> None:
        """Send a large file; only the part that fails is sent again."""
        part_bytes = max(self.part_bytes, -(-body.size_bytes // MAX_PARTS))
        starts = range(0, body.size_bytes, part_bytes)
        with MultipartUpload(self._control, *target.address, parts=len(starts)) as upload:
            etags: list[str] = []
            for number, start in enumerate(starts, 1):
                length = min(part_bytes, body.size_bytes - start)
                send = partial(self._put_part, upload, number, body, start, length)
                hold = HOLD_PARTS if etags else HOLD
                etags.append(hold.on(send, body.token))
            upload.complete(etags, {"sha256": body.sha256}, OCTETS)

    def _put_part(
        self, upload: MultipartUpload, number: int, body: Body, start: int, length: int
    ) -> str:
        return self._put(upload.link(number), body, start, length)

    def _put(self, link: str, body: Body, start: int, length: int) -> str:
        """Send a range of a file to a presigned link and return the ETag that the store gave it."""
        headers = _octets(length)
        if self._control.storage.blockstore_type == "azure":
            headers["x-ms-blob-type"] = "BlockBlob"
        put = partial(self._links.put, link, content=body.chunks(start, length), headers=headers)
        with self._control.answers.translated():
            response = interruptible(put)
        etag = str(response.headers.get("etag", "")).strip('"')
        if response.is_error or not etag:
            # 403 is an expired link; whatever it is, another link is the only thing to try.
            host = response.request.url.netloc.decode()
            raise object_store_unavailable(host, f"answered {response.status_code}")
        return etag


def _octets(size_bytes: int) -> dict[str, str]:
    """Return headers of a body of known size: S3 takes no chunked encoding."""
    return {"Content-Type": OCTETS, "Content-Length": str(size_bytes)}
