"""Options: their short spellings, and the way into the process that runs the users."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from loadtest.cli import command
from loadtest.options import (
    Options,
    from_json,
    parse_duration,
    parse_journey,
    parse_target,
    parse_think,
    shared_connections,
    to_json,
)


def test_options_survive_the_command_line() -> None:
    """The process that runs the users is told all of them in one argument."""
    options = Options(target="http://[::1]:80", users=3, spawn_rate=1.5, think_s=(0.1, 2.0), seed=9)
    assert from_json(to_json(options)) == options
    assert from_json(to_json(replace(options, report="ü"))).report == "ü"


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("0s", 0)])
def test_durations(text: str, seconds: float) -> None:
    """surface.md: durations as Go writes them."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1d", "1 s", "1s..2s", "1e3s", "\u0663s"])
def test_other_durations_are_refused(text: str) -> None:
    """Bare numbers included: no one knows their unit."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_think_times() -> None:
    """A range, or one duration for always the same."""
    assert parse_think("500ms..2s") == (0.5, 2.0)
    assert parse_think("2s") == (2.0, 2.0)
    with pytest.raises(ValueError, match="expected a duration"):
        parse_think("1s..")


def test_journeys() -> None:
    """Names, or steps with an optional method."""
    assert parse_journey("home") == [("GET", "/")]
    assert parse_journey("shop")[-1] == ("POST", "/checkout")
    assert parse_journey("/a?x=1, HEAD /b") == [("GET", "/a?x=1"), ("HEAD", "/b")]


@pytest.mark.parametrize("text", ["", "cart", "/a,,/b", "BREW /pot", "get /", "/a b", "GET  /", "/\u00fc"])
def test_other_journeys_are_refused(text: str) -> None:
    """Nothing is sent that is no request."""
    with pytest.raises(ValueError, match="expected one of shop, home or steps"):
        parse_journey(text)


def test_targets() -> None:
    """A host and a port, nothing behind them."""
    assert parse_target("http://shop.example") == ("shop.example", 80)
    assert parse_target("http://[::1]:8080/") == ("::1", 8080)
    for text in ("https://x", "http://x/path", "http://", "x:80", "http://u:p@x", "http://x:99999"):
        with pytest.raises(ValueError, match=r"expected http|ort"):
            parse_target(text)


@pytest.mark.parametrize(
    ("kind", "users", "shared"),
    [("auto", 2000, 0), ("auto", 2001, 2000), ("keep-alive", 9000, 0), ("close", 9000, 0), ("300", 10, 300)],
)
def test_connections(kind: str, users: int, shared: int) -> None:
    """A crowd that outnumbers a proxy's connections shares some, unless it is told not to."""
    options = Options(target="http://a", users=users, spawn_rate=1, connections=kind)
    assert shared_connections(options) == shared


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--think", "3s..1s"], "the shortest think time comes first"),
        (["--journey", "cart"], "expected one of shop, home or steps"),
        (["--target", "https://x/"], "expected http://HOST:PORT"),
        (["--connections", "0"], "expected auto, keep-alive, close or the number"),
        (["--user-prefix", "a\r\nb"], "expected printable ASCII"),
        (["--user-header", "X User"], "expected the name of a header"),
        (["--users", "0"], "not in the range"),
        (["--plans", "/no/such/file"], "no such file"),
        (["--bind", "here"], "expected HOST:PORT"),
        (["--master", "here:0"], "expected a port from 1 to 65535"),
        (["--master", "a b:1"], "expected HOST:PORT"),
        (["--master", "here:1", "--workers", "1"], "give one of them"),
        (["--master", "here:1", "--report", "file"], "users of one process"),
    ],
)
def test_wrong_use_says_what_was_expected(monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    """Exit code 2, and what was expected."""
    monkeypatch.setattr(os, "execv", None)  # what is not refused must not become this process
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert message in result.output
