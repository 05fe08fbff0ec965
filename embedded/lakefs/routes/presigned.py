"""Signed links: bytes move over them without credentials."""

import time
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from embedded.lakefs.blobs import Blob, BlobWriter
from embedded.lakefs.presigning import Link
from embedded.lakefs.server import CurrentServer, Server
from embedded.lakefs.transfer import FileResponse, receive

router = APIRouter(prefix="/presigned")


def blob_link(server: Server, request: Request, digest: str) -> Link:
    """Return a link that downloads a blob."""
    return _link(server, request, "GET", f"/presigned/blobs/{digest}")


def upload_link(server: Server, request: Request, upload_id: str) -> Link:
    """Return a link that takes a whole object."""
    return _link(server, request, "PUT", f"/presigned/uploads/{upload_id}")


def part_link(server: Server, request: Request, upload_id: str, number: int) -> Link:
    """Return a link that takes one part of an object."""
    return _link(server, request, "PUT", f"/presigned/parts/{upload_id}/{number}")


@router.get("/blobs/{digest}", response_class=Response)
def get_blob(
    server: CurrentServer, request: Request, digest: str, expires: int, signature: str
) -> Response:
    """Return the bytes of a blob, or the range that is asked for."""
    server.signer.check_link("GET", request.url.path, expires, signature)
    headers = {"Content-Type": "application/octet-stream"}
    return FileResponse(server.blobs.path(digest), request.headers.get("range"), headers)


@router.put("/uploads/{upload_id}", response_class=Response)
async def put_upload(
    server: CurrentServer, request: Request, upload_id: str, expires: int, signature: str
) -> Response:
    """Take the bytes of an object that is going to be linked."""
    server.signer.check_link("PUT", request.url.path, expires, signature)

    def keep(writer: BlobWriter) -> str:
        blob = server.blobs.keep(writer)
        _note_received(server, upload_id, blob)
        return blob.md5

    etag = await receive(request.stream(), server.blobs, keep)
    return Response(headers={"ETag": f'"{etag}"'})


@router.put("/parts/{upload_id}/{number}", response_class=Response)
async def put_part(
    server: CurrentServer,
    request: Request,
    upload_id: str,
    number: int,
    expires: int,
    signature: str,
) -> Response:
    """Take the bytes of one part of an object."""
    server.signer.check_link("PUT", request.url.path, expires, signature)
    keep = partial(server.blobs.keep_part, upload_id=upload_id, number=number)
    etag = await receive(request.stream(), server.blobs, keep)
    return Response(headers={"ETag": f'"{etag}"'})


def _link(server: Server, request: Request, method: str, path: str) -> Link:
    server.require_presign()
    return server.signer.link(str(request.base_url), method, path)


def _note_received(server: Server, upload_id: str, blob: Blob) -> None:
    with server.database.transaction() as tx:
        values = (upload_id, blob.digest, blob.size_bytes, int(time.time()))
        tx.run("INSERT OR REPLACE INTO received VALUES (?, ?, ?, ?)", *values)
