"""The root of the command line: every command by name, loaded when it is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from controller.cli import root
from controller.cli.root import COMMANDS, Entry, cohort, load
from tests.controller.cli.conftest import PROGRAM, Run, Spawn
from tests.support.fake_controller import FakeController

OWN = {name: entry for name, entry in COMMANDS.items() if entry.target.startswith("controller.cli.")}
HEAVY = (
    "pydantic",
    "aiohttp",
    "rich",
    "locust",
    "yaml",
    "re2",
    "uvloop",
    "asyncio",
    "http.client",
    "prometheus_client",
)


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command and those below it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))


def every_own_command() -> list[tuple[tuple[str, ...], click.Command]]:
    return [pair for name, entry in OWN.items() for pair in commands(load(name, entry), (name,))]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_overview_exists(name: str) -> None:
    """surface.md, Commands; the overview is written from a table, which must not promise what is not there."""
    assert load(name, COMMANDS[name]).get_short_help_str(limit=1000)


@pytest.mark.parametrize("path", [path for path, _ in every_own_command()], ids=" ".join)
def test_every_command_explains_itself(run: Run, path: tuple[str, ...]) -> None:
    """`cohort COMMAND --help`: exit 0, and every option has a text."""
    result = run(*path, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: cohort {' '.join(path)} ")
    command = dict(every_own_command())[path]
    assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize("line", ["--help", "get --help", "status --help", "lint --help"])
def test_help_imports_nothing_heavy(line: str) -> None:
    """`cohort --help` within 0.3 s: importing is all that it would spend time on."""
    probe = (
        "import sys; from controller.cli import main; sys.argv[1:] = sys.argv[1].split(); main();"
        f"print(*(m for m in {HEAVY} if m in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", probe, line], capture_output=True, text=True, check=True)
    assert result.stderr == "\n"


def test_the_overview_names_every_command_and_exit_code(run: Run) -> None:
    """`cohort` alone and `cohort --help`."""
    result = run("--help")
    assert all(f"\n  {name} " in result.out for name in COMMANDS)
    assert "4  timed out" in result.out


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("stauts", "there is no command 'stauts': did you mean 'status'?"),
        ("xyz", "there is no command 'xyz': 'cohort --help' lists them."),
        ("undo", "there is no command 'undo': 'abort' leaves a version that is on trial; one that was promoted"),
        ("--sever x", "No such option"),
        ("get --ouput json", "No such option"),
        ("get -o xml", "'xml' is not one of 'table', 'wide', 'json', 'yaml'"),
    ],
)
def test_wrong_use_is_exit_2(run: Run, line: str, text: str) -> None:
    """surface.md: exit 2 wrong use."""
    result = run(*line.split())
    assert result.code == 2
    assert text in result.err


def test_a_part_that_is_not_installed_is_named() -> None:
    """`proxy`, `loadtest` and `demo` are loaded by name and may be left out of an installation."""
    with pytest.raises(click.ClickException, match=r"'cohort gone' needs the Python module 'gone', which is not"):
        load("gone", Entry("gone.cli:command", "", ""))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cohort version` fails in a way that nobody has thought of."""
    monkeypatch.setitem(root.COMMANDS, "version", Entry("tests.controller.cli.test_root:broken", "", ""))


@click.command()
def broken() -> None:
    raise KeyError("what")


def test_an_unforeseen_fault_is_one_line(failing: None, monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    """Never a traceback, unless it is asked for."""
    from controller.cli import main

    monkeypatch.setattr(sys, "argv", ["cohort", "version"])
    assert main() == 70
    assert isinstance(capsys, pytest.CaptureFixture)
    assert capsys.readouterr().err.startswith("Error: internal fault: KeyError: 'what'; COHORT_DEBUG=1 shows where")
    monkeypatch.setenv("COHORT_DEBUG", "1")
    with pytest.raises(KeyError):
        main()


def test_ctrl_c_ends_quietly(controller: FakeController, spawn: Spawn) -> None:
    """130 as shells have it, and not a word."""
    process = spawn("status", "checkout", "-n", "shop", "-w")
    deadline = time.monotonic() + 10
    while len(controller.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert out.count(b"\n") == 1
    assert err == b""


def test_a_reader_that_has_gone_is_no_fault(spawn: Spawn) -> None:
    """`cohort schema | head -1`: quiet, with the exit code of SIGPIPE."""
    process = spawn("schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=10) == 141


def test_a_full_disk_is_told(spawn: Spawn) -> None:
    """What could not be written must not look written."""
    with open("/dev/full", "wb") as full:
        process = spawn("version", stdout=full)
        assert process.stderr is not None
        assert b"Error: the operating system refused: [Errno 28]" in process.stderr.read()
        assert process.wait(timeout=10) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_an_output_that_is_closed_is_written_to_in_vain(controller: FakeController, closed: str) -> None:
    """A shell may close either; the exit code still tells."""
    line = f"exec {sys.executable} -c '{PROGRAM[2]}' status checkout -n shop --server {controller.url} {closed}"
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert (result.stdout == "") == closed.startswith(">")
    assert result.stderr == ""


def on_a_terminal(*args: str, **env: str) -> str:
    """What a command prints on a terminal of its own."""
    main, side = os.openpty()
    try:
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        subprocess.run(
            [*PROGRAM, *args], stdout=side, stderr=side, env=environment | {"TERM": "xterm"} | env, check=True
        )
        os.set_blocking(main, False)
        return os.read(main, 65536).decode()
    finally:
        os.close(main)
        os.close(side)


def test_colours_are_for_terminals_that_want_them(controller: FakeController, run: Run) -> None:
    """Colours only on a terminal; NO_COLOR (no-color.org) and TERM=dumb honoured."""
    assert "\x1b" not in run("get").out
    assert "\x1b[36m" in on_a_terminal("get", "--server", controller.url)
    assert "\x1b" not in on_a_terminal("get", "--server", controller.url, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("get", "--server", controller.url, TERM="dumb")


def test_on_a_terminal_a_followed_rollout_is_redrawn(controller: FakeController) -> None:
    """`status -w` for people: the whole view."""
    controller.change(phase="Healthy")
    shown = on_a_terminal("status", "-w", "--server", controller.url)
    assert "shop/checkout" in shown
    assert "Conditions:" in shown
    assert "\x1b[32m" in shown
    assert "\x1b[32m" not in on_a_terminal("status", "-w", "--server", controller.url, NO_COLOR="1")


def test_an_encoding_that_lacks_a_letter_gets_an_escape(controller: FakeController, spawn: Spawn) -> None:
    """A reason in Greek on a Latin-1 terminal must not end in a traceback."""
    controller.change(revision={"stable": "v1", "canary": "β"})
    out, _ = spawn("get", env={"PYTHONIOENCODING": "latin-1"}).communicate(timeout=10)
    assert b"\\u03b2" in out


def test_the_console_script_is_this_command() -> None:
    """pyproject.toml: `cohort` is `controller.cli:main`."""
    script = Path(sys.executable).parent / "cohort"
    result = subprocess.run([script, "version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("cohort 0.")
    assert cohort.name == "cohort"
