"""``python -m workers cpu`` runs a worker for lifecycle jobs, ``gpu`` one for inference.

Each GPU has a worker of its own: ``gpu --device cuda:0``, ``gpu --device cuda:1``.
"""

import argparse
import re

from shared.logs import configure_logs
from shared.settings import Settings
from workers.app import Worker


def main() -> None:
    """Run a worker until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("kind", choices=["cpu", "gpu"])
    parser.add_argument(
        "--name", help="its name at Celery and Flower; default: KIND@HOST, KIND-DEVICE@HOST"
    )
    parser.add_argument(
        "--device",
        type=_device,
        help="what a gpu worker's models run on, in place of the setting: auto, cpu, cuda, cuda:N",
    )
    arguments = parser.parse_args()
    if arguments.device and arguments.kind != "gpu":
        parser.error("only a gpu worker has a device")
    configure_logs()
    settings, name = Settings(), arguments.name
    if arguments.device:
        settings = on_device(settings, arguments.device)
        name = name or name_on_device(settings)
    Worker(settings, arguments.kind, name).run()


def on_device(settings: Settings, device: str) -> Settings:
    """Return the settings of a worker of that device."""
    inference = settings.inference.model_copy(update={"device": device})
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
