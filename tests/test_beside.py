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
import pytest
from pathlib import Path

def test_waits_for_the_other_process():
    deadline = time.monotonic() + 60
    while not Path("began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

def test_fails_here():
    assert False, "told here"

def test_fails_beside_others():
    if not Path("failed").exists():
        Path("failed").touch()
        assert False, "told once"

@pytest.mark.verdict
def test_judges_those_before():
    if not Path("judged").exists():
        Path("judged").touch()
        assert False, "told by them"
"""
TOGETHER = """
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
    """Folders: one that measures, and for further processes one, one within it, and the rest."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\naddopts = -p no:locust -ra\nmarkers = verdict\n")
    groups = ("t/c",), ("t/c/d",), ("t",)
    pytester.makeconftest(f"from tests import beside\nbeside.GROUPS = {groups}\nbeside.ALONE = 't/a'\n")
    pytester.mkdir("t")
    for folder, text in (("a", HERE), ("b", MEANWHILE), ("c", TOGETHER)):
        path = pytester.mkdir(f"t/{folder}") / f"test_{folder}.py"
        path.write_text(text)
    path = pytester.mkdir("t/c/d") / "test_d.py"
    path.write_text("def test_apart():\n    pass\n")
    return pytester


def test_all_processes_are_told_as_one(suite: pytest.Pytester) -> None:
    """Each test once; outcomes, reasons and output of the others are those of the run; nothing is measured
    while it runs."""
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.assert_outcomes(passed=6, failed=3, errors=1, skipped=1)
    for line in (
        "*said*",
        "*told here*",
        "*told there*",
        "*OSError: at the end*",
        "SKIPPED*a reason*",
        "t/c/test_c.py*",
    ):
        result.stdout.fnmatch_lines([line])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_what_fails_among_others_is_run_again_alone(suite: pytest.Pytester) -> None:
    """Who passes then has passed, and is named; who fails again has failed, with what it says then."""
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.stdout.fnmatch_lines(["*failed beside others, passed alone: t/b/test_b.py::test_fails_beside_others*"])
    result.stdout.fnmatch_lines(["*told once*", "*s: once more, alone"])
    assert "FAILED t/b/test_b.py::test_fails_beside_others" not in result.stdout.str()


def test_a_verdict_on_other_tests_has_no_second_chance(suite: pytest.Pytester) -> None:
    """Alone, with nothing before it, it would pass."""
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.stdout.fnmatch_lines(["FAILED t/b/test_b.py::test_judges_those_before*told by them*"])


def test_where_many_fail_no_second_chance_is_given(suite: pytest.Pytester) -> None:
    """It is not for a busy machine that seven fail."""
    more = "\n".join(f"def test_{n}():\n    assert False\n" for n in range(7))
    Path(suite.path, "t/c/d/test_d.py").write_text(more)
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.assert_outcomes(passed=4, failed=11, errors=1, skipped=1)
    assert "alone" not in result.stdout.str()


def test_a_process_that_dies_fails_the_run(suite: pytest.Pytester) -> None:
    """What it had reported counts."""
    text = TOGETHER + "\ndef test_dies():\n    import os\n    os._exit(0)\n"
    Path(suite.path, "t/c/test_c.py").write_text(text)
    result = suite.runpytest_subprocess("-p", "tests.beside", "-s")
    result.assert_outcomes(passed=6, failed=4, errors=1, skipped=1)
    result.stdout.fnmatch_lines(["t/c: this process ended with None"])


def test_what_cannot_be_collected_there_fails_the_run(suite: pytest.Pytester) -> None:
    Path(suite.path, "t/c/test_c.py").write_text("import nothing_of_this_name\n")
    Path(suite.path, "t/b/test_b.py").write_text("def test_passes():\n    pass\n")
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.assert_outcomes(passed=3, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*nothing_of_this_name*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_module_that_skips_as_a_whole_is_told(suite: pytest.Pytester) -> None:
    """It has no test that could tell."""
    Path(suite.path, "t/c/test_c.py").write_text("import pytest\npytest.skip('whole', allow_module_level=True)\n")
    Path(suite.path, "t/c/test_e.py").write_text("from pathlib import Path\ndef test_e():\n    Path('began').touch()\n")
    result = suite.runpytest_subprocess("-p", "tests.beside")
    result.stdout.fnmatch_lines(["SKIPPED*whole*"])
    assert "INTERNALERROR" not in result.stderr.str()
    result.assert_outcomes(passed=5, failed=2, skipped=1)
