"""Files: input media for inference, uploaded once and named by their id."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from starlette.requests import ClientDisconnect

from api.callers import Calling
from api.documented import NOT_FOUND, PROBLEM
from api.services import Provided
from api.uploads import FIELD, FilePart
from shared.errors import InvalidInputError
from shared.media.errors import too_large
from shared.media.files import FileStore, StoredFile

router = APIRouter(prefix="/files", tags=["files"])

#: What the frame of a multipart body takes beside the file.
_FRAME_BYTES = 16 * 1024
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary", "minLength": 1}},
                "additionalProperties": False,
            }
        }
    },
}
FileId = Annotated[
    str,
    Path(openapi_examples={"file": {"value": "file-019aac2e7c527d10a3b50d0c6e1f2a3b"}}),
]


@router.post(
    "",
    summary="Upload a medium",
    status_code=201,
    responses={422: PROBLEM},
    openapi_extra={"requestBody": _BODY},
)
async def upload(
    services: Provided, caller: Calling, request: Request, response: Response
) -> StoredFile:
    """Store a file; where a task takes a medium, its `file_id` stands for it.

    It is kept for a time that the operator has set (seven days by default).
    """
    limit = services.settings.media.max_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit + _FRAME_BYTES:
        raise _too_large(limit)
    try:
        stored = await _received(request, limit, services.files, caller.id)
    except ClientDisconnect:
        raise InvalidInputError("the upload was broken off", field=FIELD) from None
    response.headers["Location"] = f"/files/{stored.file_id}"
    return stored


async def _received(request: Request, limit: int, files: FileStore, submitter: str) -> StoredFile:
    """Pass the body on to the storage, piece by piece."""
    part = FilePart(request.headers.get("content-type", ""))
    came_bytes = 0
    async with contextmanager_in_threadpool(files.uploading(FIELD, submitter)) as target:
        async for chunk in request.stream():
            # The storage counts the file alone; after its end the body could go on for ever.
            came_bytes += len(chunk)
            if came_bytes > limit + _FRAME_BYTES:
                raise _too_large(limit)
            if piece := part.feed(chunk):
                await run_in_threadpool(target.write, piece)
        part.finish()
        return await run_in_threadpool(target.finish)


def _too_large(limit: int) -> InvalidInputError:
    return too_large(f"the file has more than {limit} bytes", FIELD)


@router.get("/{file_id}", summary="Look at a file", responses=NOT_FOUND)
def look_at(services: Provided, caller: Calling, file_id: FileId) -> StoredFile:
    """Return what is known of a file."""
    return services.files.get(file_id, submitter=caller.submitter)


@router.delete("/{file_id}", summary="Delete a file", responses=NOT_FOUND)
def delete(services: Provided, caller: Calling, file_id: FileId) -> StoredFile:
    """Delete a file, and return what was known of it; a job that needs it then fails."""
    return services.files.delete(file_id, caller.submitter)
