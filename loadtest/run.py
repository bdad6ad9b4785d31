"""The process of the synthetic users: ``python -m loadtest.run OPTIONS``.

In a process of its own because importing locust patches every socket with gevent.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import gevent
from gevent.event import Event
from locust import User
from locust.env import Environment

from loadtest import master, tally
from loadtest.client import Connection, LostError, SharedConnections, resolve
from loadtest.master import STOP_S
from loadtest.options import Options, from_json, parse_address, parse_journey, parse_target, shared_connections
from loadtest.person import Crowd, Sight
from loadtest.plans import parse_facts
from loadtest.report import EVERY_S, Reporter
from loadtest.tag import read_tagger
from loadtest.users import Client, user_class
from loadtest.worker import Worker, apart

PLANS_S = 0.5  # how often plans are asked for; a user's next request comes later than that
TARGET_S = 1.0  # between two looks whether the proxy takes connections
SPARE_FILES = 200  # descriptors beside those of the users
SHOWN_FLIPS = 20  # told at once; the summary has more


def main(arguments: Sequence[str]) -> int:
    """Run users until the duration is over or a signal comes, and say what they saw.

    Returns:
        0: no flip and no request lost; 1 otherwise; 2: it could not begin.
    """
    options = from_json(arguments[0])
    logging.basicConfig(level=logging.ERROR, format="locust: %(message)s")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(number, stop.set)
    try:
        _check_ports(options)
        result = master.run(options, stop) if options.workers else _users(options, stop)
    except (OSError, ValueError) as error:
        click.echo(f"cohort loadtest: {error}", err=True)
        return 2
    click.echo(json.dumps(result) if options.output == "json" else tally.text(result))
    return 0 if result["ok"] else 1


def _users(options: Options, stop: Event) -> dict[str, Any]:
    """Run this process's users.

    Returns:
        The summary.

    Raises:
        OSError, ValueError: It could not begin.
    """
    options = apart(options) if options.master else options
    tagger = read_tagger(options.synthetic_key, options.rollout)
    crowd = Crowd(options, parse_journey(options.journey), count(1), tagger)
    connect = _connector(options)
    reporter = Reporter(_sender(options.report), lambda: tally.totals(crowd.tally)) if options.report else None
    learner = Learner(_source(options.plans), crowd) if options.plans else None
    began = time.monotonic()
    _run(options, crowd, user_class(crowd, connect, _watcher(reporter)), _Beside(reporter, learner, stop))
    for complaint in _complaints(reporter, learner):
        click.echo(f"cohort loadtest: {complaint}", err=True)
    return _summary(crowd, time.monotonic() - began)


def _watcher(reporter: Reporter | None) -> Callable[[Sight], None]:
    """What is told of each request: the first flips at once, all to the reporter."""
    shown = count(1)

    def watch(sight: Sight) -> None:
        if sight.flip and next(shown) <= SHOWN_FLIPS:
            click.echo(f"FLIP user {sight.user}: {sight.flip}", err=True)
        if reporter:
            reporter.put(sight)

    return watch


@dataclass(frozen=True, slots=True)
class _Beside:
    """What goes on beside the users until ``stop`` is set."""

    reporter: Reporter | None
    learner: Learner | None
    stop: Event

    def start(self, options: Options, crowd: Crowd) -> list[Any]:
        beside = []
        if options.progress_s:
            beside.append(gevent.spawn(_every, options.progress_s, _progress(crowd), self.stop))
        if self.learner:
            self.learner.learn()
            beside.append(gevent.spawn(_every, PLANS_S, self.learner.learn, self.stop))
        if self.reporter:
            beside.append(gevent.spawn(_every, EVERY_S, self.reporter.flush, self.stop))
        return beside


def _run(options: Options, crowd: Crowd, users: type[User], beside: _Beside) -> None:
    environment = Environment(user_classes=[users], host=options.target, stop_timeout=STOP_S)
    running = beside.start(options, crowd)
    if options.master:
        _wait_for_target(options.target, beside.stop)
        if not Worker(environment, crowd).run(options.master, beside.stop):
            raise OSError(f"no master answered at {options.master}")
        beside.stop.set()
    else:
        _run_alone(options, crowd, environment, beside.stop)
    gevent.joinall(running)
    if beside.reporter:
        beside.reporter.flush()


def _wait_for_target(target: str, stop: Event) -> None:
    """A worker is often started together with the proxies: what is not there yet has lost no request."""
    while not stop.is_set():
        with suppress(OSError), socket.create_connection(parse_target(target), TARGET_S):
            return
        stop.wait(TARGET_S)


def _run_alone(options: Options, crowd: Crowd, environment: Environment, stop: Event) -> None:
    runner = environment.create_local_runner()
    page = environment.create_web_ui("127.0.0.1", options.web_port) if options.web_port else None
    if page:
        click.echo(f"locust's page: http://127.0.0.1:{options.web_port}/", err=True)
    runner.start(options.users, options.spawn_rate)
    stop.wait(options.duration_s or None)
    stop.set()
    crowd.close()
    runner.stop()
    if page:
        page.stop()  # type: ignore[no-untyped-call]  # locust has no annotation here
    runner.quit()


def _every(seconds: float, act: Callable[[], None], stop: Event) -> None:
    while not stop.wait(seconds):
        act()


def _progress(crowd: Crowd) -> Callable[[], None]:
    """Tells how the run stands, with the rate since it told last."""
    before, since = 0, time.monotonic()

    def tell() -> None:
        nonlocal before, since
        line = tally.progress(crowd.tally, before, time.monotonic() - since)
        before, since = crowd.tally.requests, time.monotonic()
        click.echo(f"{time.strftime('%H:%M:%S')} {line}", err=True)

    return tell


def _summary(crowd: Crowd, seconds: float) -> dict[str, Any]:
    ledger = crowd.ledger
    shares = [
        tally.share(gate, users, weights, ledger.trial(gate[0], gate[1])) for gate, users, weights in ledger.shares()
    ]
    return tally.summary(crowd.tally, seconds, ledger.behind, shares)


def _connector(options: Options) -> Callable[[], Client]:
    """What makes the client of one user.

    Raises:
        OSError: The target's name is unknown.
        ValueError: Too few file descriptors for a connection a user.
    """
    host, port = parse_target(options.target)
    address, name = resolve(host, port), urlsplit(options.target).netloc
    shared = shared_connections(options)
    _allow_files((shared or options.users) + SPARE_FILES)
    if shared:
        pool = SharedConnections([Connection(address, name, options.timeout_s) for _ in range(shared)])
        return lambda: pool
    return lambda: Connection(address, name, options.timeout_s)


def _allow_files(need: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < need <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
    elif soft < need:
        raise ValueError(
            f"{need} connections are needed, ulimit -n allows {hard}: use fewer users or --connections 500"
        )


def _sender(report: str) -> Callable[[bytes], None]:
    """Delivers reports: posts them to a URL, or adds a line to a file."""
    if not report.startswith("http://"):
        return lambda message: _append(Path(report), message)
    post = _client(report)
    fields = {"Content-Type": "application/json"}

    def send(message: bytes) -> None:
        try:
            post("POST", fields, message)
        except LostError as error:
            raise OSError(str(error)) from None

    return send


def _append(path: Path, message: bytes) -> None:
    with path.open("ab") as file:
        file.write(message + b"\n")


class Learner:
    """Takes in what the source of plans says; one that does not answer teaches nothing for now.

    Attributes:
        learnt: How often it has said something.
        error: Why it has said nothing the last time.
    """

    def __init__(self, fetch: Callable[[], bytes], crowd: Crowd) -> None:
        self.learnt = 0
        self.error = ""
        self._fetch = fetch
        self._ledger = crowd.ledger

    def learn(self) -> None:
        """Ask once."""
        try:
            for facts in parse_facts(self._fetch()):
                self._ledger.learn(facts)
            self.learnt += 1
        except (OSError, LostError, ValueError) as error:
            self.error = str(error)


def _source(plans: str) -> Callable[[], bytes]:
    """Fetches what is said of plans, from a URL or a file."""
    if plans.startswith("http://"):
        get = _client(plans)
        return lambda: get("GET", {}, b"")
    return Path(plans).read_bytes


def _complaints(reporter: Reporter | None, learner: Learner | None) -> list[str]:
    """What went wrong beside the users, who were judged all the same."""
    found = []
    if reporter and reporter.dropped:
        found.append(f"{reporter.dropped} reports were not delivered: {reporter.error}")
    if learner and not learner.learnt:
        found.append(f"no plan was learnt: {learner.error}")
    return found


def _check_ports(options: Options) -> None:
    """Whether locust can have its ports: it would tell too late, or end the process.

    Raises:
        OSError: One is taken, or there is no such address.
    """
    host, port = parse_address(options.bind) if options.workers else ("127.0.0.1", 0)
    for one in {port, options.web_port if not options.master else 0} - {0}:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("" if host == "*" else host, one))


def _client(url: str) -> Callable[[str, dict[str, str], bytes], bytes]:
    """A connection to one URL; statuses other than 200 count as no answer."""
    parts = urlsplit(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    connection = Connection(resolve(parts.hostname or "", parts.port or 80), parts.netloc, 5.0)

    def call(method: str, fields: dict[str, str], body: bytes) -> bytes:
        reply = connection.exchange(method, target, fields, body)
        if reply.status not in (200, 202, 204):
            raise LostError(str(reply.status), f"{url} answered {reply.status}")
        return reply.body

    return call


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
