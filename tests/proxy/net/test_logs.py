"""The program's own log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pytest

from proxy.net.logs import MAX_WAITING, LogHandler, line

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("cohort.test", logging.WARNING, "x.py", 1, message, args, None)


def test_a_record_is_one_line_of_json_whatever_is_in_it() -> None:
    """Contract item 19: escaped bytes; no peer can add or break a line."""
    data = line(record("abort by %r: %s", "a\nb", '"\u2028\udc80\0'))
    assert data.count(b"\n") == 1
    entry = json.loads(data)
    assert entry["message"] == "abort by 'a\\nb': \"\u2028\udc80\0"
    assert (entry["level"], entry["logger"]) == ("warning", "cohort.test")
    assert entry["time"].endswith("Z")


def test_a_wrong_format_loses_no_message() -> None:
    """A mistake in a log call is not worth a traceback."""
    assert "nothing" in json.loads(line(record("%d is nothing", "x")))["message"]


def test_lines_reach_the_descriptor_in_order(pipe: Pipe) -> None:
    """And all of them, at the end."""
    dropped: list[int] = []
    handler = LogHandler(pipe[1], lambda: dropped.append(1))
    for number in range(100):
        handler.emit(record("%d", number))
    handler.close()
    lines = os.read(pipe[0], 65_536).splitlines()
    assert [json.loads(text)["message"] for text in lines] == [str(number) for number in range(100)]
    assert dropped == []


def test_a_reader_that_is_stuck_blocks_nobody_and_is_counted(pipe: Pipe) -> None:
    """F20: the queue is bounded, what finds no room is dropped."""
    dropped: list[int] = []
    handler = LogHandler(pipe[1], lambda: dropped.append(1))
    for _ in range(3 * MAX_WAITING):
        handler.emit(record("x" * 1000))
    assert len(dropped) > MAX_WAITING
    os.set_blocking(pipe[0], False)
    while handler._thread.is_alive():
        try:
            os.read(pipe[0], 1 << 20)
        except BlockingIOError:
            handler._lines.put(None) if handler._lines.empty() else None
            handler._thread.join(0.01)
    handler.close()


def test_a_full_disk_is_counted() -> None:
    """F19, /dev/full: no traceback, no loop."""
    dropped: list[int] = []
    descriptor = os.open("/dev/full", os.O_WRONLY)
    handler = LogHandler(descriptor, lambda: dropped.append(1))
    handler.emit(record("x"))
    handler.close()
    os.close(descriptor)
    assert dropped == [1]
