"""``python -m workers cpu`` runs a worker for lifecycle jobs, ``gpu`` one for inference."""

import argparse

from shared.logs import configure_logs
from shared.settings import Settings
from workers.app import Worker


def main() -> None:
    """Run a worker until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("kind", choices=["cpu", "gpu"])
    parser.add_argument("--name", help="its name at Celery and Flower; default: KIND@HOST")
    arguments = parser.parse_args()
    configure_logs()
    Worker(Settings(), arguments.kind, arguments.name).run()


if __name__ == "__main__":
    main()
