"""Children that never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from demo.processes import start


async def gone(pid: int) -> bool:
    """Whether a process ends within seconds."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        await asyncio.sleep(0.01)
    return False


async def test_what_a_child_says_is_kept(tmp_path: Path) -> None:
    """Output and errors go to a file each, and a failure tells their end."""
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    child = await start("talker", [sys.executable, "-c", code], tmp_path, {"X": "1"})
    assert await child.process.wait() == 0
    assert child.said() == "err\nout"
    assert str(child.failure("ended")) == "talker ended; it said:\nerr\nout"


async def test_stop_asks_first(tmp_path: Path) -> None:
    """By a signal that it may handle; one that has ended is no error."""
    code = (
        "import signal,sys; signal.signal(signal.SIGINT, lambda *_: sys.exit(7)); print(1, flush=True); signal.pause()"
    )
    child = await start("polite", [sys.executable, "-c", code], tmp_path, read_output=True)
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    assert await child.stop(signal.SIGINT) == 7
    assert await child.stop() == 7


async def test_stop_insists(tmp_path: Path) -> None:
    """What does not end is made to."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    child = await start("stubborn", [sys.executable, "-c", code], tmp_path, read_output=True)
    assert child.process.stdout is not None
    await child.process.stdout.readline()
    assert await child.stop(grace_s=0.1) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
async def test_children_end_with_their_parent(tmp_path: Path, number: int) -> None:
    """Whatever becomes of the demo, nothing of it stays behind."""
    code = f"""
import asyncio, pathlib
from demo.processes import start
async def main():
    child = await start("sleeper", ["sleep", "60"], pathlib.Path({str(tmp_path)!r}))
    print(child.process.pid, flush=True)
    await child.process.wait()
asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    os.kill(parent.pid, number)
    await parent.wait()
    assert await gone(pid)
