"""Presigned uploads in one piece: ask where to, put it there, link it to its path."""

import time
import uuid

from fastapi import APIRouter
from starlette.requests import Request

from embedded.lakefs import staging, views
from embedded.lakefs.bodies import StagingMetadata
from embedded.lakefs.errors import InvalidError
from embedded.lakefs.forms import DEFAULT_CONTENT_TYPE
from embedded.lakefs.model import Entry
from embedded.lakefs.routes.objects import OnlyNew
from embedded.lakefs.routes.presigned import upload_link
from embedded.lakefs.server import CurrentServer, ObjectPlace
from embedded.lakefs.views import Json

router = APIRouter(prefix="/repositories/{repository}/branches/{branch}/staging/backing")


@router.get("")
def get_physical_address(
    server: CurrentServer,
    request: Request,
    place: ObjectPlace,
    *,
    presign: bool = False,
) -> Json:
    """Hand out an address for one upload, with a link to it if asked."""
    upload_id = uuid.uuid4().hex
    address = server.signer.address(upload_id, place)
    with server.reading(place.repository) as (_, found):  # the branch matters when it is linked
        answer: Json = {"physical_address": found.physical(address), "presigned_url": None}
    if presign:
        link = upload_link(server, request, upload_id)
        answer |= {"presigned_url": link.url, "presigned_url_expiry": link.expires}
    return answer


@router.put("")
def link_physical_address(
    server: CurrentServer,
    place: ObjectPlace,
    body: StagingMetadata,
    only_new: OnlyNew,
) -> Json:
    """Stage what was uploaded to an address that was handed out for this path."""
    checksum = body.checksum.strip('" ')
    if not checksum:
        raise InvalidError("checksum is required")
    with server.writing(place.repository, force=body.force) as (tx, found):
        address = found.relative(body.staging.physical_address)
        upload_id = server.signer.check_address(address, place)
        row = tx.one("SELECT digest, size_bytes FROM received WHERE upload_id = ?", upload_id)
        if row is None:
            raise InvalidError("link address invalid: nothing was uploaded to it")
        entry = Entry(
            digest=row["digest"],
            checksum=checksum,
            size_bytes=row["size_bytes"],
            mtime=int(time.time()) if body.mtime is None else body.mtime,
            content_type=body.content_type or DEFAULT_CONTENT_TYPE,
            metadata=body.user_metadata,
        )
        staging.put(tx, place, entry, only_new=only_new)
    return views.entry(place.path, entry, body.staging.physical_address)
