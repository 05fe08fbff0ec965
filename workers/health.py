"""Whether workers are well, as seen from outside of them: by what they last said in the ledger."""

import sys

from shared.errors import UnavailableError
from shared.ledger import Presence, connect
from shared.settings import Settings


def health(settings: Settings, name: str | None) -> int:
    """Print one line on one worker, or on all of this host; return 0 if all is well, else 1."""
    try:
        faults = _faults(Presence(connect(settings.redis), settings.ledger), settings, name)
    except UnavailableError as error:
        faults = {"unknown": error.detail}
    wrong = [f"{worker}: {fault}" for worker, fault in faults.items() if fault]
    if not faults:
        wrong = [f"no worker of {settings.storage.host_id} has said anything lately"]
    sys.stdout.write("; ".join(wrong or [f"{worker}: well" for worker in faults]) + "\n")
    return 1 if wrong else 0


def _faults(presence: Presence, settings: Settings, name: str | None) -> dict[str, str | None]:
    if name:
        return {name: presence.fault(name)}
    host = settings.storage.host_id
    return {worker.name: worker.fault for worker in presence.workers() if worker.host == host}
