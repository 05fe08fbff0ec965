"""Presigned uploads in parts."""

import hashlib
import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from embedded.lakefs import branches, names, staging, views
from embedded.lakefs.bodies import (
    AbortPresignMultipartUpload,
    CompletePresignMultipartUpload,
    UploadPartFrom,
)
from embedded.lakefs.errors import InvalidError, UnsupportedError
from embedded.lakefs.forms import DEFAULT_CONTENT_TYPE
from embedded.lakefs.model import Entry, Place
from embedded.lakefs.routes.presigned import part_link
from embedded.lakefs.server import CurrentServer, ObjectPlace, Server
from embedded.lakefs.transfer import read, receive
from embedded.lakefs.views import Json

MAX_PARTS = 10_000

router = APIRouter(prefix="/repositories/{repository}/branches/{branch}/staging/pmpu")

PartNumber = Annotated[int, Path(ge=1, le=MAX_PARTS)]


@router.post("", status_code=201)
def create_upload(
    server: CurrentServer, request: Request, place: ObjectPlace, parts: int = 0
) -> Json:
    """Begin an upload and hand out links for some parts."""
    if not server.presign:
        raise UnsupportedError("presign multipart upload API is not supported")
    names.check_path(place.path)
    if not 0 <= parts <= MAX_PARTS:
        raise InvalidError(f"parts can be between 0 and {MAX_PARTS}")
    with server.writing(place.repository) as (tx, found):
        branches.require(tx, place.repository, place.branch)
    upload_id = uuid.uuid4().hex
    address = server.signer.address(upload_id, place)
    numbers = range(1, parts + 1)
    links = [part_link(server, request, upload_id, number).url for number in numbers]
    return {
        "upload_id": upload_id,
        "physical_address": found.physical(address),
        "presigned_urls": links,
    }


@router.put("/{upload_id}/parts/{number}")
def upload_part(
    server: CurrentServer,
    request: Request,
    place: ObjectPlace,
    upload_id: str,
    number: PartNumber,
    body: UploadPartFrom,
) -> Json:
    """Hand out a link for one more part."""
    _check(server, place, upload_id, body.physical_address)
    return {"presigned_url": part_link(server, request, upload_id, number).url}


@router.put("/{upload_id}")
async def complete_upload(
    server: CurrentServer,
    place: ObjectPlace,
    upload_id: str,
    body: CompletePresignMultipartUpload,
) -> Json:
    """Join the parts and stage the object."""
    if not body.parts:
        raise InvalidError("parts are required")
    address = body.physical_address
    await run_in_threadpool(_check, server, place, upload_id, address)
    listed = sorted((part.part_number, part.etag.strip('" ')) for part in body.parts)
    arrived = await run_in_threadpool(server.blobs.parts, upload_id)
    if not set(listed) <= arrived.keys():
        raise InvalidError("one or more of the specified parts could not be found")
    files = [arrived[part] for part in listed]
    blob = await receive(read(files), server.blobs, server.blobs.keep)
    entry = Entry(
        digest=blob.digest,
        checksum=_checksum([etag for _, etag in listed]),
        size_bytes=blob.size_bytes,
        mtime=int(time.time()),
        content_type=body.content_type or DEFAULT_CONTENT_TYPE,
        metadata=body.user_metadata,
    )

    def stage() -> None:
        with server.writing(place.repository) as (tx, _):
            staging.put(tx, place, entry)
        server.blobs.drop_parts(upload_id)

    await run_in_threadpool(stage)
    return views.entry(place.path, entry, address)


@router.delete("/{upload_id}", status_code=204, response_class=Response)
def abort_upload(
    server: CurrentServer,
    place: ObjectPlace,
    upload_id: str,
    body: AbortPresignMultipartUpload,
) -> None:
    """Give an upload up."""
    _check(server, place, upload_id, body.physical_address)
    server.blobs.drop_parts(upload_id)


def _check(server: Server, place: Place, upload_id: str, address: str) -> None:
    """Refuse an upload that was not begun here for this object."""
    with server.reading(place.repository) as (_, found):
        relative = found.relative(address)
    if server.signer.check_address(relative, place) != upload_id:
        raise InvalidError("link address invalid")


def _checksum(etags: list[str]) -> str:
    """Return what object stores report for an object in parts: md5 of md5s, and their count."""
    joined = b"".join(map(bytes.fromhex, etags))
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
