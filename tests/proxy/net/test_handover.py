"""The document between two images of one supervisor."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from proxy.net import handover
from proxy.net.handover import Handover, OpeningRecord, WorkerRecord


def document(pid: int) -> Handover:
    return Handover(
        pid=pid,
        boot="0b",
        state_dir="/state",
        lock=1001,
        memory=1002,
        openings=(OpeningRecord("listeners", ":0", 0, 1, 1003),),
        workers=(WorkerRecord(77, 1004, 1002, 3, 9, 12.5), WorkerRecord(78, 1005, 1006, 0, 9)),
        rejected={"older": 2},
    )


def test_what_is_written_is_read() -> None:
    made = document(1)
    assert handover.read(handover.write(made)) == made
    assert made.descriptors() == {1001, 1002, 1003, 1004, 1005, 1006}


def test_fields_of_another_version_are_left_out_and_missing_ones_have_defaults() -> None:
    """An upgrade and the way back: the two images need not know the same."""
    descriptor = os.memfd_create("x")
    lean = {"pid": 1, "boot": "0b", "state_dir": "/", "lock": 3, "memory": 4, "openings": [], "novel": 1}
    worker = {"pid": 5, "line": 6, "memory": 4, "place": 0, "staged": 1, "mood": "good"}
    os.write(descriptor, json.dumps(lean | {"workers": [worker]}).encode())
    found = handover.read(descriptor)
    assert (found.workers, found.reloads, found.plan) == ((WorkerRecord(5, 6, 4, 0, 1),), {}, None)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"", b'{"openings": [], "workers": [{}]}'])
def test_what_is_no_document_is_an_error(content: bytes) -> None:
    descriptor = os.memfd_create("x")
    os.write(descriptor, content)
    with pytest.raises(ValueError, match=r"no handover|Expecting value"):
        handover.read(descriptor)


def test_only_the_very_process_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a child that inherited the environment; and no child of ours inherits it."""
    assert handover.take() is None
    monkeypatch.setenv(handover.VARIABLE, str(handover.write(document(os.getpid() + 1))))
    assert handover.take() is None
    assert handover.VARIABLE not in os.environ


def test_a_command_that_is_gone_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are not inheritable again, the document's own is closed."""
    descriptor = os.memfd_create("x")
    made = Handover(os.getpid(), "0b", "/", descriptor, descriptor)
    monkeypatch.setattr(handover, "command", lambda: ["/nowhere/cohort"])
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        handover.execute(made)
    assert os.listdir("/proc/self/fd") == before
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_script_is_executed_by_its_own_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade behind a link it may name another interpreter; anything else goes through this one."""
    script = tmp_path / "cohort"
    script.write_text("#!/usr/bin/python3\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "proxy"])
    monkeypatch.setattr(sys, "orig_argv", ["python3", str(script), "proxy"])
    assert handover.command() == [str(script), "proxy"]
    script.chmod(0o644)
    assert handover.command() == [sys.executable, str(script), "proxy"]
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-c", "code", "proxy"])
    monkeypatch.setattr(sys, "argv", ["-c", "proxy"])
    assert handover.command() == [sys.executable, "-c", "code", "proxy"]
