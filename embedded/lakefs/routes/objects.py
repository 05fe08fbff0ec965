"""Objects: upload, download, copy, delete."""

import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from embedded.lakefs import branches, names, staging, views
from embedded.lakefs.blobs import BlobWriter
from embedded.lakefs.bodies import ObjectCopyCreation, PathList
from embedded.lakefs.errors import (
    InvalidError,
    PreconditionFailedError,
    UnsupportedError,
)
from embedded.lakefs.forms import content_of
from embedded.lakefs.model import Entry, Place
from embedded.lakefs.routes.presigned import blob_link
from embedded.lakefs.server import CurrentServer, ObjectPlace, Server
from embedded.lakefs.transfer import FileResponse, byte_range, content_range, receive
from embedded.lakefs.views import Json

#: Which headers of an upload become metadata, and how their keys begin there.
METADATA_PREFIXES = {"x-lakefs-meta-": "", "x-lakefs-internal-": "::lakefs::"}
MAX_DELETES = 1000

router = APIRouter(prefix="/repositories/{repository}")


async def only_new(
    if_none_match: Annotated[str | None, Header()] = None,
    if_match: Annotated[str | None, Header()] = None,
) -> bool:
    """Read the preconditions that lakeFS knows: none, or `If-None-Match: *`."""
    if if_match is not None or if_none_match not in {None, "*"}:
        raise UnsupportedError("Not Implemented")
    return if_none_match == "*"


OnlyNew = Annotated[bool, Depends(only_new)]


@router.post("/branches/{branch}/objects", status_code=201)
async def upload_object(
    server: CurrentServer,
    request: Request,
    place: ObjectPlace,
    only_new: OnlyNew,
    *,
    force: bool = False,
) -> Json:
    """Store the body and stage it; what can be refused is refused before a block is stored."""

    def check() -> None:
        names.check_path(place.path)
        with server.writing(place.repository, force=force) as (tx, _):
            branches.require(tx, place.repository, place.branch)
            if only_new and staging.find(tx, place.repository, place.branch, place.path):
                raise PreconditionFailedError("path already exists")

    content = await content_of(request)

    def stage(writer: BlobWriter) -> Json:
        blob = server.blobs.keep(writer)
        entry = Entry(
            digest=blob.digest,
            checksum=blob.md5,
            size_bytes=blob.size_bytes,
            mtime=int(time.time()),
            content_type=content.content_type,
            metadata=_user_metadata(request.headers),
        )
        with server.writing(place.repository, force=force) as (tx, found):
            staging.put(tx, place, entry, only_new=only_new)
        return views.entry(place.path, entry, found.physical(f"data/{entry.digest}"))

    return await receive(content.chunks, server.blobs, stage, check)


@router.get("/refs/{ref}/objects", response_class=Response)
def get_object(
    server: CurrentServer,
    request: Request,
    repository: str,
    ref: str,
    path: str,
    *,
    presign: bool = False,
) -> Response:
    """Return the bytes of an object, or some of them, or a link to them."""
    entry = _entry(server, repository, ref, path)
    if request.headers.get("if-none-match") == _etag(entry):
        return Response(status_code=304)
    if presign:
        return RedirectResponse(blob_link(server, request, entry.digest).url, 302)
    headers = {**_headers(entry), "Content-Disposition": "attachment"}
    return FileResponse(server.blobs.path(entry.digest), request.headers.get("range"), headers)


@router.head("/refs/{ref}/objects", response_class=Response)
def head_object(
    server: CurrentServer, request: Request, repository: str, ref: str, path: str
) -> Response:
    """Return the headers that a download would have."""
    entry = _entry(server, repository, ref, path)
    headers = {**_headers(entry), "Accept-Ranges": "bytes"}
    asked = request.headers.get("range")
    if asked is None:
        return Response(headers=headers | {"Content-Length": str(entry.size_bytes)})
    served = byte_range(asked, entry.size_bytes)
    headers["Content-Range"] = content_range(served, entry.size_bytes)
    return Response(status_code=206, headers=headers | {"Content-Length": str(len(served))})


@router.delete("/branches/{branch}/objects", status_code=204, response_class=Response)
def delete_object(
    server: CurrentServer, repository: str, branch: str, path: str, *, force: bool = False
) -> None:
    """Stage the deletion of one object."""
    names.check_path(path)
    with server.writing(repository, force=force) as (tx, _):
        staging.remove(tx, repository, branch, path)


@router.post("/branches/{branch}/objects/delete")
def delete_objects(
    server: CurrentServer, repository: str, branch: str, body: PathList, *, force: bool = False
) -> Json:
    """Stage the deletion of many objects, all or none."""
    if len(body.paths) > MAX_DELETES:
        raise InvalidError(f"request size exceeded, max paths is set to {MAX_DELETES}")
    with server.writing(repository, force=force) as (tx, _):
        # What is not there is not missed, on a branch that is not there either.
        if branches.find(tx, repository, branch):
            for path in body.paths:
                staging.remove(tx, repository, branch, path)
    return {"errors": []}


@router.post("/branches/{branch}/objects/copy", status_code=201)
def copy_object(
    server: CurrentServer, repository: str, branch: str, dest_path: str, body: ObjectCopyCreation
) -> Json:
    """Stage an object of any reference at another path."""
    if body.shallow:
        raise UnsupportedError("Not Implemented")
    with server.writing(repository, force=body.force) as (tx, found):
        branches.require(tx, repository, branch)
        source = staging.get(tx, repository, body.src_ref or branch, body.src_path)
        entry = replace(source, mtime=int(time.time()))
        staging.put(tx, Place(repository, branch, dest_path), entry)
        return views.entry(dest_path, entry, found.physical(f"data/{entry.digest}"))


def _entry(server: Server, repository: str, ref: str, path: str) -> Entry:
    with server.reading(repository) as (tx, _):
        return staging.get(tx, repository, ref, path)


def _etag(entry: Entry) -> str:
    return f'"{entry.checksum}"'


def _headers(entry: Entry) -> Mapping[str, str]:
    return {
        "ETag": _etag(entry),
        "Last-Modified": formatdate(entry.mtime, usegmt=True),
        "Content-Type": entry.content_type,
        "Cache-Control": "no-store, must-revalidate",
        "Expires": "0",
    }


def _user_metadata(headers: Headers) -> dict[str, str]:
    # Header values travel as latin-1; lakeFS takes the bytes for UTF-8.
    return {
        kept + key.removeprefix(prefix): value.encode("latin-1").decode(errors="replace")
        for prefix, kept in METADATA_PREFIXES.items()
        for key, value in headers.items()
        if key.startswith(prefix)
    }
