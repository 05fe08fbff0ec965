"""``python -m shared.lakefs REPOSITORY`` makes a repository of the store, unless it is there."""

import argparse

from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings


def main() -> None:
    """Make the repository that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m shared.lakefs", description=__doc__)
    parser.add_argument("repository")
    repository = parser.parse_args().repository
    store = LakeFSStore(LakeFSSettings())
    try:
        store.ensure_repository(repository)
    finally:
        store.close()


if __name__ == "__main__":
    main()
