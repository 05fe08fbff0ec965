"""The setup of a lakeFS that is new: whoever calls first is its administrator."""

from contextlib import closing, suppress

from shared.errors import ConflictError
from shared.lakefs.control import Control
from shared.settings import LakeFSSettings


def set_up(settings: LakeFSSettings) -> None:
    """Make the platform's key pair the administrator's, unless lakeFS has one.

    lakeFS does it at its start only where its database is local (``cmd/lakefs/cmd/run.go``).
    """
    with closing(Control(settings)) as control:
        if control.call(control.internal.get_setup_state).state != "not_initialized":
            return
        key = {
            "access_key_id": settings.access_key_id,
            "secret_access_key": settings.secret_access_key.get_secret_value(),
        }
        with suppress(ConflictError):  # somebody was faster
            control.call(control.internal.setup, {"username": "admin", "key": key})
