"""What the server is, and who the caller is."""

from fastapi import APIRouter

from embedded.lakefs.server import CurrentServer
from embedded.lakefs.views import Json

#: The lakeFS release whose API this server follows.
VERSION = "1.88.0"

router = APIRouter()


@router.get("/config")
def get_config(server: CurrentServer) -> Json:
    """Describe the storage and the version."""
    return {
        "version_config": version_config(),
        "storage_config": storage_config(server),
        "storage_config_list": [],
        "ui_config": {},
        "capabilities_config": {},
    }


@router.get("/config/storage")
def storage_config(server: CurrentServer) -> Json:
    """Describe the storage; whether it signs links decides how clients upload."""
    return {
        "blockstore_type": "local",
        "blockstore_id": "",
        "blockstore_description": "",
        "blockstore_namespace_example": "local://example-bucket/",
        "blockstore_namespace_ValidityRegex": "^local://",
        "default_namespace_prefix": "local://",
        "pre_sign_support": server.presign,
        "pre_sign_support_ui": False,
        "pre_sign_multipart_upload": server.presign,
        "import_support": False,
        "import_validity_regex": "^local://",
    }


@router.get("/config/version")
def version_config() -> Json:
    """Name the release whose API this is; lakectl warns of any other context."""
    return {"version": VERSION, "version_context": "lakeFS"}


@router.get("/user")
def current_user(server: CurrentServer) -> Json:
    """Return the only user."""
    name = server.installation.username
    return {"user": {"id": name, "friendly_name": "", "email": "", "creation_date": server.started}}
