"""The rules of tests/conftest.py themselves, on a test suite of their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from proxy import document

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty suite under our conftest.py, outside of CI."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini(
        "[pytest]\naddopts = -p no:locust\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.makeconftest((ROOT / "tests/conftest.py").read_text())
    return pytester


def test_a_leak_fails_the_test(suite: pytest.Pytester) -> None:
    """House rule: a leaked task or socket fails the test; so does a process."""
    suite.makepyfile(
        """
        import asyncio, socket, subprocess
        from hypothesis import given, settings, strategies

        kept = []

        async def test_task():
            kept.append(asyncio.create_task(asyncio.sleep(9), name="lost"))

        @settings(max_examples=1, database=None)
        @given(strategies.just(1))
        async def test_task_under_hypothesis(n):
            kept.append(asyncio.create_task(asyncio.sleep(9), name="lost too"))

        def test_socket():
            kept.append(socket.socket())

        def test_process():
            kept.append(subprocess.Popen(["sleep", "1.5"]))
        """
    )
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=4, errors=4)
    for message in ("*name='lost'*", "*name='lost too'*", "left open: *socket:*", "still running: processes *"):
        result.stdout.fnmatch_lines([message])


def test_what_is_closed_is_no_leak(suite: pytest.Pytester) -> None:
    """A task that ends, a socket that is closed and a reaped child pass."""
    suite.makepyfile(
        """
        import asyncio, socket, subprocess, pytest

        @pytest.fixture
        async def server():
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
            yield server.sockets[0].getsockname()[1]
            server.close()
            await server.wait_closed()

        async def test_x(server):
            reader, writer = await asyncio.open_connection("127.0.0.1", server)
            assert await reader.read() == b""
            writer.close()
            socket.socket().close()
            subprocess.run(["true"])
        """
    )
    suite.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("ci", ["true", ""], ids=["ci", "elsewhere"])
def test_a_skip_is_a_failure_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    """House rule: what was not tested must not look tested, neither a test nor a whole module."""
    monkeypatch.setenv("CI", ci)
    suite.makepyfile(
        test_module="import pytest; pytest.skip('no nginx', allow_module_level=True)",
        test_one="from tests.support.require import require\ndef test_x(): require('no-such-program')",
    )
    result = suite.runpytest_subprocess("--continue-on-collection-errors")
    result.assert_outcomes(**({"failed": 1, "errors": 1} if ci else {"skipped": 2}))
    assert (result.ret != 0) == bool(ci)


def test_nothing_is_unpickled_and_yaml_is_loaded_safely() -> None:
    """Threat C8: a document is data. A loader of YAML is derived from a safe one, and nothing else makes objects."""
    banned = {"pickle", "marshal", "shelve", "dill"}
    found = []
    for path in [path for top in ("proxy", "controller", "loadtest", "demo") for path in ROOT.glob(f"{top}/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            called = node.func if isinstance(node, ast.Call) else None
            is_eval = isinstance(called, ast.Name) and called.id in ("eval", "exec")
            is_unsafe = isinstance(called, ast.Attribute) and called.attr in (
                "unsafe_load",
                "full_load",
                "UnsafeLoader",
            )
            if names & banned or is_eval or is_unsafe:
                found.append(f"{path}:{getattr(node, 'lineno', 0)}")
    assert found == []
    assert document.SafeLoader.__name__ in ("CSafeLoader", "SafeLoader")
    assert issubclass(document._UniqueKeyLoader, document.SafeLoader)
