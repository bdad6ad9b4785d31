"""``pytest -p tests.beside``: the whole suite in several processes at a time, told as if one had run it.

What measures times or costs runs first, by itself. Then every group has a process of its own, and a test that fails
among the others is run once more when they are done, with the machine to itself: only then it counts as failed. Tests
that passed so are named at the end with what had failed. One that judges what others did before it, marked `verdict`,
has no second chance: alone it would find nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

FILE = "COHORT_TEST_REPORTS"  # where another process writes what it reports
ALONE = "tests/bench/test_guard.py"
# One process each, those of tests/kube with a cluster of their own. Of a path that is named twice, what is named more
# closely goes apart; the last one has all the rest.
GROUPS: tuple[tuple[str, ...], ...] = (
    ("tests/kube", "tests/image", "tests/wire"),
    (
        "tests/kube/aborts",
        "tests/kube/faults",
        "tests/kube/test_gitops.py",
        "tests/kube/test_install_page.py",
        "tests/kube/test_installation.py",
        "tests/kube/test_loadtest.py",
        "tests/kube/pods",
        "tests/loadtest",
    ),
    ("tests/faults", "tests/integration", "tests/websocket"),
    ("tests",),
)
VERDICT = "verdict"  # the marker
AGAIN = 6  # tests that fail; of more the machine is not the cause
LOOK_S = 0.2
PATIENCE_S = 2400.0  # each test has a limit of its own; this is for a process that hangs outside of one

Report = pytest.TestReport | pytest.CollectReport


class Teller:
    """In another process: writes reports to a file, one JSON document a line."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._began = time.monotonic()
        self._file = Path(path).open("w")  # noqa: SIM115  # until the process ends

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write({"collected": len(session.items)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tell(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._tell(report)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self._write({"ended": int(exitstatus), "seconds": round(time.monotonic() - self._began)})

    def _tell(self, report: Report) -> None:
        self._write(self._config.hook.pytest_report_to_serializable(config=self._config, report=report))

    def _write(self, document: Any) -> None:
        self._file.write(json.dumps(document, default=str) + "\n")
        self._file.flush()


class Process:
    """Another process, and what it tells.

    Attributes:
        name: What it runs, for people.
        status: It ended with; None: it has not, or not by itself.
        seconds: It took.

    Args:
        config: Of this process.
        arguments: Of pytest.
        name: See above.
    """

    def __init__(self, config: pytest.Config, arguments: Sequence[str], name: str) -> None:
        self.name = name
        self.status: int | None = None
        self.seconds = 0
        self._folder = tempfile.TemporaryDirectory(prefix="cohort-beside-")
        self._reports = Path(self._folder.name, "reports")
        self._log = Path(self._folder.name, "log")
        self._read = 0
        # No plugin that keeps files: two processes would write the same ones.
        command = [sys.executable, "-m", "pytest", "-p", "tests.beside", "-p", "no:cacheprovider", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=config.rootpath, env=os.environ | {FILE: str(self._reports)}, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def told(self) -> Iterator[dict[str, Any]]:
        """What it has told since the last time."""
        if not self._reports.exists():
            return
        content = self._reports.read_bytes()
        whole = content.rfind(b"\n") + 1
        lines, self._read = content[self._read : whole].splitlines(), whole
        for document in map(json.loads, lines):
            if "ended" in document:
                self.status, self.seconds = document["ended"], document["seconds"]
            else:
                yield document

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    @property
    def problem(self) -> str:
        """What is wrong with how it ended; empty: it has run its tests to their end."""
        if self.status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return ""
        return f"{self.name}: this process ended with {self.status}\n{self._log.read_text(errors='replace')[-20_000:]}"

    def end(self) -> None:
        """Nothing of it stays, whatever ended this process's tests."""
        if not self.is_over:
            os.killpg(self._process.pid, signal.SIGINT)  # fixtures put away what they made
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._folder.cleanup()


class Runner:
    """In the first process: runs the others after the measurements, and reports what they report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._processes: list[Process] = []
        self._open: dict[str, list[pytest.TestReport]] = {}  # of tests that have not come to their end
        self._failed: dict[str, list[pytest.TestReport]] = {}
        self._passed: set[str] = set()
        self._passed_alone: dict[str, str] = {}
        config.args = [str(config.rootpath / ALONE)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        result = yield
        if session.config.option.collectonly or session.shouldstop:
            return result
        try:
            self._run(session, [self._begin(group) for group in GROUPS])
            self._judge(session)
        finally:
            for process in self._processes:
                process.end()
        return result

    def _begin(self, group: tuple[str, ...]) -> Process:
        others = {path for other in GROUPS if other is not group for path in other} | {ALONE}
        apart = [other for other in others if any(Path(other).is_relative_to(path) for path in group)]
        return self._start([*(f"--ignore={other}" for other in sorted(apart)), *group], ", ".join(group))

    def _start(self, arguments: Sequence[str], name: str) -> Process:
        process = Process(self._config, arguments, name)
        self._processes.append(process)
        return process

    def _run(self, session: pytest.Session, processes: list[Process], is_again: bool = False) -> None:
        """Wait for them, and report what passes."""
        deadline, left = time.monotonic() + PATIENCE_S, list(processes)
        while left and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            over = [process for process in left if process.is_over]
            for process in left:
                for document in process.told():
                    if "collected" not in document:
                        self._take(document)
                    elif not is_again:
                        session.testscollected += document["collected"]
            left = [process for process in left if process not in over]
        for process in processes:
            if problem := process.problem:
                self._log([broken(problem)])

    def _take(self, document: dict[str, Any]) -> None:
        """Report a test when it has come to its end, unless it failed."""
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=document)
        if report.skipped and isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)  # JSON has no tuples
        if isinstance(report, pytest.CollectReport):
            self._config.hook.pytest_collectreport(report=report)
            return
        of_test = self._open.setdefault(report.nodeid, [])
        of_test.append(report)
        if report.when == "teardown":
            del self._open[report.nodeid]
            if any(each.failed for each in of_test):
                self._failed[report.nodeid] = of_test
            else:
                self._passed.add(report.nodeid)
                self._log(of_test)

    def _judge(self, session: pytest.Session) -> None:
        """What has failed among others, run again alone."""
        first, self._failed = self._failed, {}
        again = [nodeid for nodeid, reports in first.items() if VERDICT not in reports[0].keywords]
        if again and len(first) <= AGAIN:
            self._run(session, [self._start(again, "once more, alone")], is_again=True)
        for nodeid, reports in first.items():
            if nodeid in self._passed:
                self._passed_alone[nodeid] = next(each.longreprtext for each in reports if each.failed)
            else:
                self._log(self._failed.get(nodeid, reports))

    def _log(self, reports: Sequence[pytest.TestReport]) -> None:
        """As pytest itself tells of a test, the name of its file included."""
        hook = self._config.hook
        for report in reports:
            if report.when == "setup":
                hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Where the time went, and what the machine was too busy for."""
        for nodeid, text in self._passed_alone.items():
            terminalreporter.section(f"failed beside others, passed alone: {nodeid}")
            terminalreporter.write_line(text)
        for process in self._processes:
            terminalreporter.write_line(f"{process.seconds:5} s: {process.name}")


def broken(text: str) -> pytest.TestReport:
    """A failure that no test reported."""
    where = ("tests/beside.py", None, "another process")
    return pytest.TestReport("tests/beside.py::process", where, {}, "failed", text, "call")


def pytest_configure(config: pytest.Config) -> None:
    """Be another process if the first one said so, else the first."""
    if path := os.environ.pop(FILE, ""):
        config.pluginmanager.register(Teller(config, path))
        return
    config.pluginmanager.register(Runner(config))
