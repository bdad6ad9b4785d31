"""Rules that hold for every test: a skip is a failure in CI, and a leaked task, socket or process is one anywhere."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

import hypothesis
import pytest

from proxy.net import compiled
from tests.support.leaks import children, left_over, open_sockets, unfinished_tasks

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# Programs under test run as on a machine that sets nothing: unbuffered output would hide what is lost at their end.
for variable in [name for name in os.environ if name.startswith("PYTHON")]:
    del os.environ[variable]

# Examples are timed on a machine that does other things too; CI must not fail today for what it passed yesterday.
hypothesis.settings.register_profile("cohort", deadline=None, derandomize=IN_CI)
hypothesis.settings.load_profile("cohort")


def pytest_report_header() -> str:
    """Which form of the proxy the results speak of."""
    programs = "compiled" if compiled.folder().is_dir() else "Python; make compiled"
    return f"proxy: in this process {'compiled' if compiled.IS_IN_USE else 'Python'}, in programs {programs}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compiled modules do not look up again what a test would replace in them."""
    if compiled.IS_IN_USE:
        out = [item for item in items if "monkeypatch" in getattr(item, "fixturenames", ())]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip would hide that nothing was tested."""
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips as a whole."""
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report: Report) -> Report:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure in CI: {reason}"
    return report


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fails a test after which a socket or a child process of its own is still there."""
    sockets, processes = open_sockets(), children()
    yield
    if leaked := left_over(open_sockets, sockets):
        pytest.fail(f"left open: {sorted(leaked)}", pytrace=False)
    if leaked := left_over(children, processes):
        pytest.fail(f"still running: processes {sorted(leaked)}", pytrace=False)


@pytest.fixture(autouse=True)
def no_leaked_tasks(request: pytest.FixtureRequest, no_leaks: None) -> None:
    """The same for tasks; it comes second so that the test's loop is closed before its sockets are counted."""
    function = getattr(request, "function", None)
    function = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if inspect.iscoroutinefunction(function):
        request.getfixturevalue("tasks_end")


@pytest.fixture
async def tasks_end() -> AsyncIterator[None]:
    """Fails a test after whose fixtures are gone a task of its loop is still there."""
    yield
    if tasks := await unfinished_tasks():
        pytest.fail("still running: " + "; ".join(map(repr, tasks)), pytrace=False)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns a loopback port nobody listens on, another one at each call.

    For programs that cannot be given port 0; whatever can be, should.
    """
    held: list[int] = []

    def take() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in held:
                held.append(port)
                return port

    return take
