"""``python -m api`` runs the API; ``python -m api health`` says whether it accepts jobs.

The latter prints one line and ends with 0 or 1, as health checks of containers expect.
"""

import argparse
import sys

from api.health import health
from shared.settings import Settings, exit_on_wrong_settings


def main() -> None:
    """Serve until told to stop, or check a running API."""
    parser = argparse.ArgumentParser(
        prog="python -m api",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=["serve", "health"], default="serve")
    arguments = parser.parse_args()
    with exit_on_wrong_settings():
        settings = Settings()
    if arguments.command == "health":
        parser.exit(health(settings.api))
    _serve(settings)


def _serve(settings: Settings) -> None:
    # These imports take seconds, which a health check does not have.
    from api.exposure import reason_not_to_serve  # noqa: PLC0415
    from api.server import prepare, serve  # noqa: PLC0415
    from shared.identity.store import KeyStore  # noqa: PLC0415
    from shared.ledger import connect  # noqa: PLC0415
    from shared.logs import configure_logs  # noqa: PLC0415

    configure_logs(settings.log.level)
    client = connect(settings.redis)
    prepare(client, settings.ledger)
    keys = KeyStore(client, settings.ledger)
    if reason := reason_not_to_serve(settings.api, keys):
        sys.exit(reason)
    serve(settings.api)


if __name__ == "__main__":
    main()
