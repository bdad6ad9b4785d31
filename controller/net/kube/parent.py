"""The process that a controller's container is: it starts the controller again when that was killed.

A container that has ended makes its whole pod unready, a sidecar's too, until the kubelet starts it again: at first at
once, then after 10 s, 20 s, up to 5 min. So long its proxy, which serves on, would be out of its Service, and with
every replica's controller killed some times there would be none left in it. A controller that ends by itself, because
it was told to or cannot start, ends the container as ever.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

PAUSE_S, MAX_PAUSE_S = 0.2, 10.0  # before it is started again: at first, and at most
FORGIVEN_S = 60.0  # a controller that has lived for so long begins with the shortest pause

log = logging.getLogger("cohort.kube")


def keep(command: Sequence[str], pause_s: float = PAUSE_S) -> int:
    """Run a command until it ends otherwise than by a signal, or until SIGTERM or SIGINT, which it gets too.

    Args:
        command: Its words.
        pause_s: Before it is started again the first time; twice that the next.

    Returns:
        Its exit status; 128 and the signal's number if it was ended by one at last, as a shell has it.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        for process in running:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    failures = 0
    while True:
        begun = time.monotonic()
        running[:] = [subprocess.Popen(command)]  # noqa: S603  # our own command line
        if stop.is_set():  # the signal came before there was anybody to tell
            running[0].terminate()
        status = running[0].wait()
        if stop.is_set() or status >= 0:
            return status if status >= 0 else 128 - status
        failures = 0 if time.monotonic() - begun > FORGIVEN_S else failures
        log.error("the controller was ended by %s and is started again", signal.Signals(-status).name)
        if stop.wait(min(pause_s * 2.0**failures, MAX_PAUSE_S)):
            return 0
        failures = min(failures + 1, 10)
