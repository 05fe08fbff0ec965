"""Runs a command that dies with the process that started it: `leash.py PARENT_PID COMMAND...`.

The kernel is asked to kill this process when its parent goes (PR_SET_PDEATHSIG), and that wish
survives the exec. A script of its own, because code between fork and exec (`preexec_fn`) may
deadlock in a parent that has threads. What the command starts in turn has no leash: see
`warden.py`.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != int(parent):
        sys.exit("the parent went before the wish was heard")
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
