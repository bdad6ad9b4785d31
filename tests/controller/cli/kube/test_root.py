"""The plugin's command line: the same commands, found by kubectl."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.kube import root
from controller.cli.kube.root import NAMES, group
from tests.controller.cli.test_root import HEAVY


@pytest.mark.parametrize("line", ["--help", "get --help", "set weight --help"])
def test_help_imports_nothing_heavy(line: str) -> None:
    """The issue: `--help` in 0.3 s; importing is all that it would spend time on."""
    heavy = (*HEAVY, "kubernetes_asyncio", "ssl")
    probe = (
        "import sys; from controller.cli.kube import main; sys.argv[1:] = sys.argv[1].split(); main();"
        f"print(*(m for m in {heavy} if m in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", probe, line], capture_output=True, text=True, check=True)
    assert result.stderr == "\n"
    assert "kubectl cohort" in result.stdout


def test_nothing_of_the_plugin_imports_the_library_of_kubernetes() -> None:
    """Its import alone takes longer than a person waits."""
    probe = (
        "import sys; import controller.cli.kube.client;"
        "print('kubernetes_asyncio' in sys.modules, 'aiohttp' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout == "False False\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_the_cluster_s_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No `--server`, for kubectl's own means another thing; no `--by`, for the API server knows, and proxies do not."""
    assert root.run([name, *(["weight"] if name == "set" else []), "--help"]) == 0
    said = capsys.readouterr().out
    assert "--context" in said
    assert "--kubeconfig" in said
    assert "--server" not in said
    assert ("--by" in said) == ("--direct" in said) == (name == "abort")
    assert "\n    cohort " not in said


def test_an_unknown_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    """surface.md: exit 2, and the nearest that there is."""
    assert root.run(["abrot"]) == 2
    assert "did you mean 'abort'?" in capsys.readouterr().err
    assert root.run(["proxy"]) == 2


@pytest.mark.parametrize(
    ("args", "expected"),
    [(["pro"], ["promote\t"]), (["set", ""], ["weight"]), (["get", "--all"], ["--all-namespaces\t"])],
)
def test_completion_is_written_as_kubectl_reads_it(
    args: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """kubectl runs `kubectl_complete-cohort`: a value and its help a line, then what the shell should do."""
    assert root.complete(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(expected[0])]
    assert lines[-1] == ":4"


def test_the_commands_of_cohort_are_as_they_were() -> None:
    """The plugin's are copies: what it leaves out is left out there alone."""
    from controller.cli.root import cohort, load

    assert group.name == "group"
    assert cohort.name == "cohort"
    entry = root.COMMANDS["get"]
    assert "server" in [param.name for param in load("get", entry).params]


def test_help_costs_a_few_starts_of_the_interpreter() -> None:
    """The issue: `--help` in 0.3 s. In processor time beside a bare interpreter's, so that other work does not count.

    It is six times a bare start, which takes 10 to 25 ms.
    """
    program = str(Path(sys.executable).parent / "kubectl-cohort")
    bare = min(_cpu_s(sys.executable, "-c", "pass") for _ in range(5))
    for line in ("--help", "get --help", "set weight --help"):
        assert min(_cpu_s(program, *line.split()) for _ in range(5)) < 12 * max(bare, 0.01), line


def _cpu_s(*command: str) -> float:
    """Processor time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
