"""The command: which files it takes, what it prints, how it exits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.wire.attack import Attack
from tests.wire.case import load
from tests.wire.reply import Reply
from tests.wire.search import Findings, as_case

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
GET = r'["GET /a HTTP/1.1\r\nHost: t\r\n\r\n"]'
UP = r'up: ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]'  # so they are not run before careless services, too
GOOD = f"- {{id: A-1, class: a, sev: must, {UP}, send: {GET}, expect: [{{status: [200], upstream_sees: 1}}]}}"
BAD = f"- {{id: A-2, class: a, sev: SEV, {UP}, send: {GET}, expect: [{{status: [418], upstream_sees: 1}}]}}"
LATER = f"- {{id: A-3, class: a, sev: must, phase: gateway, send: {GET}, expect: [{{status: [418]}}]}}"


async def command(*arguments: str) -> tuple[int | None, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.wire", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    out = await process.stdout.read()
    return await process.wait(), out.decode().splitlines()


def file_of(folder: Path, *cases: str) -> str:
    path = folder / "further.yaml"
    path.write_text("\n".join(["schema: 1", "cases:", *cases]))
    return str(path)


async def test_any_file_can_be_given_and_a_failing_must_is_one_line_with_the_bytes(tmp_path: Path) -> None:
    """Exit status 1; both directions on both sides; the last line has the numbers."""
    status, lines = await command("--cases", file_of(tmp_path, GOOD, BAD.replace("SEV", "must"), LATER))
    assert status == 1
    assert lines[-1] == "1 passed, 1 failed"
    (line,) = [line for line in lines if line.startswith("FAIL")]
    assert line.startswith("FAIL A-2 [must] status: expected 418, got 200")
    for part in ("client> b'GET /a HTTP", "client< b'HTTP/1.1 200", "stable< b'GET /a", "stable> b'HTTP/1.1 200"):
        assert part in line
    assert [line for line in lines if line.startswith("not run")] == ["not run: phase gateway: A-3 (optional)"]


async def test_only_must_cases_count_for_the_exit_status(tmp_path: Path) -> None:
    """A should may fail; what belongs to a later phase is neither passed nor failed."""
    status, lines = await command("--cases", file_of(tmp_path, GOOD, BAD.replace("SEV", "should"), LATER))
    assert (status, lines[-1]) == (0, "1 passed, 1 failed")
    status, lines = await command("--cases", file_of(tmp_path, GOOD, BAD.replace("SEV", "must")), "--only", "A-1")
    assert (status, lines[-1]) == (0, "1 passed, 0 failed")


async def test_a_file_that_cannot_be_read_is_status_2(tmp_path: Path) -> None:
    """Every fault is told."""
    status, lines = await command("--cases", file_of(tmp_path, "- {id: A-1}"))
    assert status == 2
    assert any("class is missing" in line for line in lines)


@pytest.mark.parametrize(
    "given",
    [
        Attack((b"GET /a HT", b"TP/1.1\r\nHost: \xff\x00\r\n\r\n")),
        Reply(b"HEAD /a HTTP/1.1\r\nHost: t\r\n\r\n", (b"HTTP/1.1 404 N\r\n", b"\r\n\x80"), "rst"),
        Reply(b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n", (b"rubbish",), ""),
    ],
    ids=["attack", "reply", "rubbish"],
)
def test_a_finding_is_printed_as_a_case(tmp_path: Path, given: Attack | Reply) -> None:
    """So that it can be kept: the line is one of a file, and says the same bytes."""
    findings = Findings(1, [(given, ["I2: something", "order: else"])])
    fail, case, last = findings.lines()
    assert fail.startswith("FAIL I2: something; order: else | ")
    assert last == "0 passed, 1 failed"
    assert case == as_case(given, ["I2: something", "order: else"])
    (read,) = load(Path(file_of(tmp_path, case))).cases
    steps = read.send if isinstance(given, Attack) else read.up
    assert steps is not None
    assert b"".join(getattr(step, "data", b"") for step in steps) == given.data
