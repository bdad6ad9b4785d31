"""The `cohort` command. This module is all that runs before the command is known, so it imports next to nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE: `cohort get | head -1` is no fault
BUG = 70  # EX_SOFTWARE of sysexits.h: an error that nobody has thought of


def main() -> int:
    """Run the command line.

    Returns:
        The exit code: 0 done or healthy; 1 degraded, aborted or refused; 2 wrong use; 3 not reachable; 4 timed out;
        130 interrupted, 141 the reader of the output has gone, 70 a fault of cohort itself.
    """

    def run() -> int:
        from controller.cli import root

        return root.run(sys.argv[1:])

    return guarded(run)


def guarded(run: Callable[[], int]) -> int:
    """Run a program's command line, whatever becomes of its output, and explain what nobody has thought of."""
    try:
        _open_output()
        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = BROKEN_PIPE
    except Exception as error:
        code = _explain(error)
    if code in (INTERRUPTED, BROKEN_PIPE) or not _is_written():
        _discard_output()
    return code


def _is_written() -> bool:
    """Whether all output is out: what a full disk did not take would make the interpreter's last flush fail too."""
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _explain(error: Exception) -> int:
    """Say in one line what stopped the command; the traceback is for whoever asks for it."""
    if os.environ.get("COHORT_DEBUG"):
        raise error
    if isinstance(error, OSError):
        message = f"the operating system refused: {error}"
    else:
        message = f"internal fault: {type(error).__name__}: {error}; COHORT_DEBUG=1 shows where. Please report it"
    sys.stderr.write(f"Error: {message}\n")
    return 1 if isinstance(error, OSError) else BUG


def _open_output() -> None:
    """Where the shell has closed an output (``>&-``), write into nothing: Python leaves None there."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends


def _discard_output() -> None:
    """Let the interpreter's last flush go nowhere: it would complain once more, and exit with a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
