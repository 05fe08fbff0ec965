"""The setup of a lakeFS that is new: whoever calls first is its administrator."""

from contextlib import closing, suppress

from shared.errors import ConflictError, InvalidInputError
from shared.lakefs.control import Control
from shared.settings import LakeFSSettings

#: lakeFS' S3 gateway, by which MLflow's artifacts come, reads no longer one
#: (``pkg/gateway/sig/v4.go``).
ACCESS_KEY_ID_CHARACTERS = 20


def set_up(settings: LakeFSSettings) -> None:
    """Make the platform's key pair the administrator's, unless lakeFS has one.

    lakeFS does it at its start only where its database is local (``cmd/lakefs/cmd/run.go``).
    """
    with closing(Control(settings)) as control:
        if control.call(control.internal.get_setup_state).state != "not_initialized":
            return
        if len(settings.access_key_id) > ACCESS_KEY_ID_CHARACTERS:
            raise InvalidInputError(
                f"LAKEFS_ACCESS_KEY_ID has {len(settings.access_key_id)} characters; lakeFS' S3 "
                f"gateway takes {ACCESS_KEY_ID_CHARACTERS} at most. This makes a good one: "
                "echo AKIA$(openssl rand -hex 8)",
                code="lakefs_access_key_id_too_long",
            )
        key = {
            "access_key_id": settings.access_key_id,
            "secret_access_key": settings.secret_access_key.get_secret_value(),
        }
        with suppress(ConflictError):  # somebody was faster
            control.call(control.internal.setup, {"username": "admin", "key": key})
