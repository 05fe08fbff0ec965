"""``python -m workers cpu`` runs a worker for lifecycle jobs, ``gpu`` one for inference.

``ollama`` runs one for inference by an Ollama server; it needs neither a GPU nor torch.
Each GPU has a worker of its own: ``gpu --device cuda:0``, ``gpu --device cuda:1``.

``python -m workers health`` says whether the workers of this host are well, or the one of
``--name``: it prints one line and ends with 0 or 1, as containers ask for it.
"""

import argparse
import re
import sys

from shared.errors import UnavailableError
from shared.ledger import Presence, connect
from shared.logs import configure_logs
from shared.settings import Settings, exit_on_wrong_settings


def main() -> None:
    """Run a worker until it is told to stop, or look at one that runs."""
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "kind",
        choices=["cpu", "gpu", "ollama", "health"],
        metavar="cpu | gpu | ollama | health",
    )
    parser.add_argument(
        "--name", help="its name at Celery and Flower; default: KIND@HOST, KIND-DEVICE@HOST"
    )
    parser.add_argument(
        "--device",
        type=_device,
        help="what a gpu worker's models run on, in place of the setting: auto, cpu, cuda, cuda:N",
    )
    parser.add_argument(
        "--alone",
        nargs=3,
        metavar=("JOB", "FENCE", "PARENT"),
        help="do one job that the worker of process id PARENT has claimed; workers start this",
    )
    arguments = parser.parse_args()
    if arguments.device and arguments.kind != "gpu":
        parser.error("only a gpu worker has a device")
    with exit_on_wrong_settings():
        settings = Settings()
    if arguments.kind == "health":
        parser.exit(health(settings, arguments.name))
    _run(settings, arguments.kind, arguments.name, arguments.device, arguments.alone)


def _run(
    settings: Settings,
    kind: str,
    name: str | None,
    device: str | None,
    alone: tuple[str, str, str] | None,
) -> None:
    from workers.app import Worker  # noqa: PLC0415 - it takes seconds, which a look has not

    configure_logs(settings.log.level)
    if device:
        settings = on_device(settings, device)
        name = name or name_on_device(settings)
    if alone:
        job_id, fence, parent = alone
        Worker(_bare(settings), kind, name).run_alone(job_id, int(fence), int(parent))
    else:
        Worker(settings, kind, name).run()


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


def on_device(settings: Settings, device: str) -> Settings:
    """Return the settings of a worker of that device."""
    inference = settings.inference.model_copy(update={"device": device})
    return settings.model_copy(update={"inference": inference})


def _bare(settings: Settings) -> Settings:
    """Return the settings of a process that loads no model but the one it needs."""
    inference = settings.inference.model_copy(update={"preload": False})
    return settings.model_copy(update={"inference": inference})


def name_on_device(settings: Settings) -> str:
    """Return a worker's name that says what it runs on, so that one host can have several."""
    return f"gpu-{settings.inference.device.replace(':', '')}@{settings.storage.host_id}"


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")
    return text


if __name__ == "__main__":
    main()
