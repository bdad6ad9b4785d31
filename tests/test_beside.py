"""The further processes of a whole run, on a suite of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
HERE = """
import time
from pathlib import Path

def test_measures():
    time.sleep(0.5)
    assert not Path("began").exists()
"""
MEANWHILE = """
import time
from pathlib import Path

def test_waits_for_the_other_process():
    deadline = time.monotonic() + 60
    while not Path("began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

def test_fails_here():
    assert False, "told here"
"""
BESIDE = """
import pytest
from pathlib import Path

def test_begins():
    Path("began").touch()

def test_fails():
    print("said")
    assert False, "told there"

@pytest.fixture
def bad():
    yield
    raise OSError("at the end")

def test_ends_badly(bad):
    pass

@pytest.mark.skip(reason="a reason")
def test_skips():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Folders: one that measures, one for this process, one for the second, and in it one for the third."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = -p no:locust -ra\n")
    pytester.makeconftest("from tests import beside\nbeside.BESIDE = (('c',), ('c/d',))\nbeside.ALONE = 'a'\n")
    for folder, text in (("a", HERE), ("b", MEANWHILE), ("c", BESIDE)):
        path = pytester.mkdir(folder) / f"test_{folder}.py"
        path.write_text(text)
    path = pytester.mkdir("c/d") / "test_d.py"
    path.write_text("def test_apart():\n    pass\n")
    return pytester


def test_all_processes_are_told_as_one(suite: pytest.Pytester) -> None:
    """Each test once; outcomes, reasons and output of the others are those of the run; nothing is measured
    while it runs."""
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.assert_outcomes(passed=5, failed=2, errors=1, skipped=1)
    for line in ("*said*", "*told here*", "*told there*", "*OSError: at the end*", "SKIPPED*a reason*", "c/test_c.py*"):
        result.stdout.fnmatch_lines([line])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_second_process_that_dies_fails_the_run(suite: pytest.Pytester) -> None:
    """What it had reported counts."""
    text = BESIDE + "\ndef test_dies():\n    import os\n    os._exit(0)\n"
    Path(suite.path, "c/test_c.py").write_text(text)
    result = suite.runpytest_subprocess("-p", "tests.beside", "-s")
    result.assert_outcomes(passed=5, failed=3, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["c: this process ended with None"])


def test_what_cannot_be_collected_there_fails_the_run(suite: pytest.Pytester) -> None:
    Path(suite.path, "c/test_c.py").write_text("import nothing_of_this_name\n")
    Path(suite.path, "b/test_b.py").write_text("def test_passes():\n    pass\n")
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*nothing_of_this_name*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED
