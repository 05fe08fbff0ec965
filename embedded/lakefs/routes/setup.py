"""`/setup_lakefs`: makes the first user of a server that was started without a key pair."""

import time

from fastapi import APIRouter

from embedded.lakefs.auth import Credentials
from embedded.lakefs.bodies import Setup
from embedded.lakefs.server import CurrentServer
from embedded.lakefs.views import Json

#: What lakeFS tells its web page about the login, with its own accounts only.
LOGIN_CONFIG = {
    "RBAC": "none",
    "login_url": "",
    "login_url_method": "none",
    "login_failed_message": "The credentials don't match.",
    "login_cookie_names": ["internal_auth_session"],
    "logout_url": "",
}

router = APIRouter(prefix="/setup_lakefs")


@router.get("")
def setup_state(server: CurrentServer) -> Json:
    """Say whether there is a user."""
    is_set_up = server.installation.credentials is not None
    return {
        "state": "initialized" if is_set_up else "not_initialized",
        "comm_prefs_missing": False,
        "login_config": LOGIN_CONFIG,
    }


@router.post("")
def set_up(server: CurrentServer, body: Setup) -> Json:
    """Make the first user."""
    credentials = Credentials(body.key.access_key_id, body.key.secret_access_key)
    server.installation.set_up(body.username, credentials)
    return {**body.key.model_dump(), "creation_date": int(time.time())}
