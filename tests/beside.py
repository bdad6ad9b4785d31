"""``pytest -p tests.beside``: tests that mostly wait for other programs run in further processes meanwhile.

They are told in the closing line as if they had run here: what the other processes report, this one reports. Whatever
measures times or costs runs first, by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

FILE = "COHORT_TEST_REPORTS"  # where another process writes what it reports
# One process each, those of tests/kube with a cluster of their own; of a path that is named twice, what is named more
# closely goes apart. Each takes about as long as what is left for the first process.
BESIDE = (
    ("tests/kube", "tests/image", "tests/wire", "tests/websocket"),
    (
        "tests/kube/aborts",
        "tests/kube/faults",
        "tests/kube/test_gitops.py",
        "tests/kube/test_install_page.py",
        "tests/kube/test_installation.py",
        "tests/kube/test_loadtest.py",
        "tests/loadtest",
        "tests/browser",
        "tests/demo",
    ),
    ("tests/faults", "tests/integration"),
)
ALONE = "tests/bench"
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


class Runner:
    """In the first process: starts another one after the measurements, and reports what it did at the end."""

    def __init__(self, config: pytest.Config, paths: tuple[str, ...], others: tuple[str, ...]) -> None:
        self._config, self._paths = config, paths
        self._apart = [f"--ignore={other}" for other in others if any(Path(other).is_relative_to(one) for one in paths)]
        self._folder = tempfile.TemporaryDirectory(prefix="cohort-beside-")
        self._process: subprocess.Popen[bytes] | None = None
        self._took = ""
        self._log: IO[bytes] = Path(self._folder.name, "log").open("wb")  # noqa: SIM115  # as long as the process
        config.option.ignore = [*(config.option.ignore or ()), *(str(config.rootpath / path) for path in paths)]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if not nodeid.startswith(ALONE):
            self._start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        if session.config.option.collectonly:
            return (yield)
        try:
            result = yield
            if not session.shouldstop:
                self._start()
                self._finish(session)
            return result
        finally:
            self._end()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Where the time goes."""
        if self._took:
            terminalreporter.write_line(f"in another process, {self._took}")

    def _start(self) -> None:
        if self._process is None:
            environment = os.environ | {FILE: str(self._reports)}
            # No plugin that keeps files: two processes would write the same ones.
            command = [sys.executable, "-m", "pytest", "-p", "tests.beside", "-p", "no:cacheprovider"]
            command += [*self._apart, *self._paths]
            self._process = subprocess.Popen(
                command, cwd=self._config.rootpath, env=environment, stdout=self._log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def _reports(self) -> Path:
        return Path(self._folder.name, "reports")

    def _finish(self, session: pytest.Session) -> None:
        """Wait for it, and report what it reported."""
        assert self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        ended = None
        for document in self._told():
            if "collected" in document:
                session.testscollected += document["collected"]
            elif "ended" in document:
                ended = document["ended"]
                self._took = f"{', '.join(self._paths)}: {document['seconds']} s"
            else:
                self._report(document)
        if ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            log = Path(self._log.name).read_text(errors="replace")
            self._log_report(broken(f"{', '.join(self._paths)}: this process ended with {ended}\n{log[-20_000:]}"))

    def _told(self) -> Iterator[dict[str, Any]]:
        if self._reports.exists():
            for line in self._reports.read_text().splitlines():
                yield json.loads(line)

    def _report(self, document: dict[str, Any]) -> None:
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=document)
        if isinstance(report, pytest.CollectReport):
            self._config.hook.pytest_collectreport(report=report)
        else:
            if report.skipped and isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # JSON has no tuples
            self._log_report(report)

    def _log_report(self, report: pytest.TestReport) -> None:
        """As pytest itself tells of a test, the name of its file included."""
        hook = self._config.hook
        if report.when == "setup":
            hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
        hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def _end(self) -> None:
        """Nothing of it stays, whatever ended this process's tests."""
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)  # fixtures put away what they made
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()
        self._folder.cleanup()


def broken(text: str) -> pytest.TestReport:
    """A failure that no test reported."""
    where = ("tests/beside.py", None, "another process")
    return pytest.TestReport("tests/beside.py::process", where, {}, "failed", text, "call")


def pytest_configure(config: pytest.Config) -> None:
    """Be another process if the first one said so, else the first."""
    if path := os.environ.pop(FILE, ""):
        config.pluginmanager.register(Teller(config, path))
        return
    for paths in BESIDE:
        others = tuple(other for group in BESIDE if group is not paths for other in group)
        config.pluginmanager.register(Runner(config, paths, others))
