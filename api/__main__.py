"""``python -m api`` runs the front."""

import sys

import uvicorn

from api.app import create_app
from api.exposure import reason_not_to_serve
from shared.identity.store import KeyStore
from shared.ledger import connect
from shared.logs import configure_logs
from shared.settings import Settings


def main() -> None:
    """Serve until told to stop."""
    configure_logs()
    settings = Settings()
    keys = KeyStore(connect(settings.redis), settings.ledger)
    if reason := reason_not_to_serve(settings.api, keys):
        sys.exit(reason)
    uvicorn.run(
        create_app(settings),
        host=settings.api.host,
        port=settings.api.port,
        log_config=None,
        access_log=False,
        # Followers of events hold their connections open for as long as their jobs run.
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
