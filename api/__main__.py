"""``python -m api`` runs the front; ``python -m api health`` says whether it takes jobs.

The latter prints one line and ends with 0 or 1, as containers ask for it.
"""

import argparse
import sys

from api.health import health
from shared.logs import configure_logs
from shared.settings import Settings, exit_on_wrong_settings


def main() -> None:
    """Serve until told to stop, or look at a front that serves."""
    parser = argparse.ArgumentParser(
        prog="python -m api",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=["serve", "health"], default="serve")
    with exit_on_wrong_settings():
        settings = Settings()
    if parser.parse_args().command == "health":
        parser.exit(health(settings.api))
    _serve(settings)


def _serve(settings: Settings) -> None:
    import uvicorn  # noqa: PLC0415 - these take seconds, which a look has not

    from api.app import create_app  # noqa: PLC0415
    from api.exposure import reason_not_to_serve  # noqa: PLC0415
    from shared.identity.store import KeyStore  # noqa: PLC0415
    from shared.ledger import connect  # noqa: PLC0415

    configure_logs()
    # So long the event loop stands still when a thread computes: by default five times longer.
    sys.setswitchinterval(0.001)
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
