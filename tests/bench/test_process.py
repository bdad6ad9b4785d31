from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.bench.process import cpu_ns, running, tree, wait_until

BUSY = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"


def test_cpu_time_counts_descendants(tmp_path: Path) -> None:
    """A proxy's workers are part of its cost: here a parent that only waits for a busy child."""
    child = f"{BUSY}print('done', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    log = tmp_path / "log"
    with running([sys.executable, "-c", parent], "0", log) as process:
        wait_until(lambda: b"done" in log.read_bytes(), "the child", log)
        pids = tree(process.pid)
        assert len(pids) == 2
        assert 0.2e9 <= cpu_ns(process.pid) < 5e9
        for pid in reversed(pids):
            if pid != process.pid:
                os.kill(pid, signal.SIGTERM)


def test_a_program_that_does_not_answer_is_reported_with_its_output(tmp_path: Path) -> None:
    """Whoever runs the measurement must see why a peer did not start."""
    log = tmp_path / "log"
    with running([sys.executable, "-c", "print('port in use')"], "0", log):
        time.sleep(0.3)
        with pytest.raises(RuntimeError, match="port in use"):
            wait_until(lambda: False, "it", log, timeout_s=0.5)
