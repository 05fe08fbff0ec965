"""The device that models run on, and its memory."""

import psutil
import torch


def choose_device(wanted: str) -> str:
    """Return the device for ``auto``, else the one that is wanted."""
    if wanted != "auto":
        return str(torch.device(wanted))
    return "cuda" if torch.cuda.is_available() else "cpu"


def free_bytes(device: str) -> int:
    """Return the memory that models could take on the device now."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
