"""``cohort loadtest``: checks what it is told, then becomes the process that runs the users."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from loadtest.options import (
    IDENTITIES,
    JOURNEYS,
    Options,
    parse_address,
    parse_duration,
    parse_journey,
    parse_target,
    parse_think,
    to_json,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
EXAMPLE = '"/,/cart,POST /checkout"'
RAMP_S = 5.0  # all users are there within seconds: a rollout's first step waits for them
MAX_SPAWN_RATE = 500.0  # connections a second that neither the proxy's backlog nor two cores notice


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str], Any]:
    """The callback of an option whose text a function parses; its ValueError is what the user is told."""

    def callback(_ctx: click.Context, _param: click.Parameter, text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def checked(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str], str]:
    """The callback of an option that stays text once a function has taken it."""

    def check(text: str) -> str:
        parse(text)
        return text

    return parsed(check)


def header_name(text: str) -> None:
    """A header's name, or empty.

    Raises:
        ValueError: Anything else.
    """
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in text):
        raise ValueError(f"expected the name of a header, got {text!r}")


def source(text: str) -> None:
    """A URL, a file that exists, or empty.

    Raises:
        ValueError: Anything else.
    """
    if text and not text.startswith("http://") and not Path(text).is_file():
        raise ValueError(f"expected http://... or a file; there is no such file: {text}")


def key_file(text: str) -> None:
    """A file that exists, or empty.

    Raises:
        ValueError: Anything else.
    """
    if text and not Path(text).is_file():
        raise ValueError(f"expected a key file; there is no such file: {text}")


def rollout_name(text: str) -> None:
    """``namespace/name``, or empty.

    Raises:
        ValueError: Anything else.
    """
    if text and not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", text):
        raise ValueError(f"expected NAMESPACE/NAME, got {text!r}")


def header_value(text: str) -> None:
    """What a header can carry.

    Raises:
        ValueError: Anything else.
    """
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"expected printable ASCII, got {text!r}")


def address(text: str) -> None:
    """``host:port``, or empty.

    Raises:
        ValueError: Anything else.
    """
    if text:
        parse_address(text)


def connections(text: str) -> None:
    """``auto``, ``keep-alive``, ``close`` or a number of at least 1.

    Raises:
        ValueError: Anything else.
    """
    if text not in ("auto", "keep-alive", "close") and not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(
            f"expected auto, keep-alive, close or the number of connections that users share, got {text!r}"
        )


def _option(name: str, callback: Callable[..., Any], default: str, metavar: str, text: str) -> Decorator:
    return click.option(name, callback=callback, default=default, show_default=True, metavar=metavar, help=text)


@click.command(name="loadtest", short_help="Run synthetic users against a proxy.")
@_option("--target", checked(parse_target), "http://127.0.0.1:8080", "URL", "The proxy.")
@click.option("--users", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Users at a time.")
@click.option(
    "--spawn-rate", type=click.FloatRange(0.1, 10_000), help="Users that arrive in a second.  [default: users/5]"
)
@_option("--duration", parsed(parse_duration), "0s", "TIME", "How long, such as 2m; 0s: until Ctrl-C.")
@_option("--think", parsed(parse_think), "1s..3s", "RANGE", "Pause between a user's requests.")
@_option("--journey", checked(parse_journey), "shop", "STEPS", f"{', '.join(JOURNEYS)}, or such as {EXAMPLE}.")
@click.option(
    "--identity", type=click.Choice(IDENTITIES), default="cookie", show_default=True,
    help="What names a user: a cookie jar, a header, or a header from the third request on.",
)  # fmt: skip
@_option("--user-header", checked(header_name), "X-User-Id", "NAME", "The header that names users.")
@_option("--user-prefix", checked(header_value), "user-", "TEXT", "What the names of users begin with.")
@click.option("--leave", type=click.FloatRange(0, 100), default=0.0, help="Per cent of users replaced after a journey.")
@_option(
    "--connections",
    checked(connections),
    "auto",
    "KIND",
    "keep-alive: one a user; close: one a request; a number that all share; auto.",
)
@_option("--timeout", parsed(parse_duration), "30s", "TIME", "For one whole answer.")
@_option(
    "--version-header", checked(header_name), "", "NAME", "A header in which the service names its version itself."
)
@_option("--plans", checked(source), "", "SOURCE", "URL or file of plans, whose weights are held against moves.")
@click.option("--report", default="", metavar="SINK", help="URL or file that is told what each user saw.")
@_option(
    "--synthetic-key", checked(key_file), "", "FILE", "The proxy's key `synthetic`: no request counts as a user's."
)
@_option("--rollout", checked(rollout_name), "", "NAMESPACE/NAME", "Whose synthetic users they are.")
@click.option(
    "--web", type=click.IntRange(1, 65535), is_flag=False, flag_value=8089, help="Locust's page.  [port: 8089]"
)
@click.option("--workers", type=click.IntRange(1, 1000), help="Be a master: run none here, spread them over so many.")
@_option(
    "--bind", checked(parse_address), "127.0.0.1:5557", "HOST:PORT", "A master's address, * for all; its page's too."
)
@_option(
    "--master", checked(address), "", "HOST:PORT", "Be a worker of this master, which tells how many and how long."
)
@_option("--progress", parsed(parse_duration), "5s", "TIME", "Between progress lines; 0s: none.")
@click.option("--seed", type=int, default=0, show_default=True, help="Makes think times and journeys repeatable.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(**values: Any) -> None:
    """Run synthetic users against a proxy; each knows which version it must see.

    Every request asks the proxy to explain itself. A flip, which is an answer from another version than the plan of its
    generation gives that user, and a lost request (no connection, no whole answer, 502, 503, 504) fail the run.
    The service's own errors are counted by version and do not.

    Proxies count these users as users, and judge by them, unless --synthetic-key and --rollout mark all requests.

    With a master and workers, give all the same options: the master says how many users, how fast and how long, and
    sums up; each worker makes the requests and judges its own users.

    \b
    Exit: 0 no flip and no request lost; 1 otherwise; 2 wrong use.
    """
    if bool(values["synthetic_key"]) != bool(values["rollout"]):
        raise click.UsageError("--synthetic-key and --rollout belong together: give both or none")
    if values["workers"] and values["master"]:
        raise click.UsageError("--workers makes a master, --master a worker: give one of them")
    if values["report"] and (values["workers"] or values["master"]):
        raise click.UsageError("--report tells of the users of one process, not of a master's or a worker's")
    options = to_json(from_values(values))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "loadtest.run", options])  # noqa: S606  # no shell, own module


def from_values(values: dict[str, Any]) -> Options:
    """Options from the command's values."""
    renamed = {"duration": "duration_s", "think": "think_s", "leave": "leave_percent", "timeout": "timeout_s",
               "web": "web_port", "progress": "progress_s"}  # fmt: skip
    options = {renamed.get(name, name): value for name, value in values.items()}
    options["spawn_rate"] = values["spawn_rate"] or min(max(values["users"] / RAMP_S, 1.0), MAX_SPAWN_RATE)
    options["web_port"], options["workers"] = values["web"] or 0, values["workers"] or 0
    return Options(**options)
