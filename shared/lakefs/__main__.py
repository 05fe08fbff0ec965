"""``python -m shared.lakefs REPOSITORY`` sets lakeFS up and makes a repository, unless it is so."""

import argparse
import sys
from contextlib import closing

from shared.errors import InvalidInputError
from shared.lakefs.installation import set_up
from shared.lakefs.store import LakeFSStore
from shared.settings import LakeFSSettings


def main() -> None:
    """Make the repository that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m shared.lakefs", description=__doc__)
    parser.add_argument("repository")
    repository = parser.parse_args().repository
    settings = LakeFSSettings()
    try:
        set_up(settings)
    except InvalidInputError as error:
        sys.exit(error.detail)
    with closing(LakeFSStore(settings)) as store:
        store.ensure_repository(repository)


if __name__ == "__main__":
    main()
