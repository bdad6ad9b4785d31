"""The master of a distributed run: it has no users, tells workers how many are theirs, and adds up what they saw.

Locust spreads the users and moves them when workers come and go; what it leaves out is here: a master whose last worker
went begins again with the next one, and the end waits for the last word of each worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import click
import gevent
from gevent.event import Event
from locust import argument_parser, runners
from locust.env import Environment

from loadtest import tally
from loadtest.gather import Gathered
from loadtest.options import Options, parse_address, parse_journey
from loadtest.person import Crowd
from loadtest.users import user_class

OVER = "cohort-over"  # a message to workers: what they count from now on is not the run's
TOLD = "cohort"  # the key of our part in a worker's report
STOP_S = 10.0  # for requests under way at the end; what lasts longer is cut and not counted
LAST_WORD_S = STOP_S + 5.0  # for the reports after that
LOOK_S = 0.2


class Master:
    """One run as its master sees it.

    Args:
        stop: Set when the run is to end.

    Attributes:
        seconds: How long users have been there.
    """

    def __init__(self, options: Options, stop: Event) -> None:
        self._options, self._stop = options, stop
        self._gathered = Gathered()
        self._environment = _environment(options)
        self._runner: Any = self._environment.create_master_runner(*parse_address(options.bind))
        self._environment.events.worker_report.add_listener(self._take)
        self._page: Any = _page(self._environment, options) if options.web_port else None
        self._wanted = True  # a person at the page may stop the users
        if self._page:
            self._page.app.before_request(self._note)
        self._began: float | None = None
        self.seconds = 0.0

    def run(self) -> dict[str, Any]:
        """Until the duration is over, counted from the first worker, or ``stop`` is set.

        Returns:
            The summary.
        """
        beside = [gevent.spawn(self._keep), gevent.spawn(self._tell)]
        self._stop.wait()
        self.seconds = time.monotonic() - self._began if self._began is not None else 0.0
        gevent.killall(beside)
        self._end()
        total = self._gathered.total(self._present)
        return tally.summary(total.tally, self.seconds, total.behind, total.shares())

    @property
    def _present(self) -> set[str]:
        clients = self._runner.clients
        return {one.id for one in clients.all if one.state != runners.STATE_MISSING}

    def _take(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        if TOLD in data:
            self._gathered.take(client_id, data[TOLD], self._present | {client_id})

    def _note(self) -> None:
        """What a person does at the page holds: users that were stopped there stay away."""
        from flask import request  # only where there is a page

        path = request.path.rstrip("/")
        if path.endswith(("/stop", "/swarm")):
            self._wanted = path.endswith("/swarm")

    def _keep(self) -> None:
        """Keep users running: from the first workers on, and again after the last one went and another came."""
        needed = self._options.workers
        while True:
            if self._wanted and self._runner.worker_count >= needed and self._is_idle():
                needed = 1
                self._begin()
            self._stop.wait(LOOK_S)

    def _is_idle(self) -> bool:
        return self._runner.state in (runners.STATE_INIT, runners.STATE_STOPPED)

    def _begin(self) -> None:
        if self._began is None:
            self._began = time.monotonic()
            if self._options.duration_s:
                gevent.spawn_later(self._options.duration_s, self._stop.set)
        self._runner.start(self._options.users, self._options.spawn_rate)

    def _tell(self) -> None:
        """Progress lines, as one process alone tells them."""
        before, since, every = 0, time.monotonic(), self._options.progress_s
        while every and not self._stop.wait(every):
            now, total = time.monotonic(), self._gathered.total(self._present).tally
            line = tally.progress(total, before, now - since)
            before, since = total.requests, now
            click.echo(f"{time.strftime('%H:%M:%S')} {len(self._present)} workers | {line}", err=True)

    def _end(self) -> None:
        """Let the users go, and wait for what the workers have to tell of them."""
        present = self._present
        for message in (OVER, "quit"):
            self._runner.send_message(message)
        with gevent.Timeout(LAST_WORD_S, False):
            while not self._gathered.is_final(present):
                gevent.sleep(LOOK_S)
        if self._page:
            self._page.stop()
        self._runner.quit()
        self._runner.server.close(linger=0)


def run(options: Options, stop: Event) -> dict[str, Any]:
    """Be the master until ``stop`` is set or the duration is over.

    Returns:
        The summary.
    """
    return Master(options, stop).run()


def _environment(options: Options) -> Any:  # locust is typed in part
    """Its one class of users is never made here: it names what the workers make."""
    crowd = Crowd(options, parse_journey(options.journey), count(1))
    users = user_class(crowd, _nobody, _unseen)
    return Environment(
        user_classes=[users], host=options.target, stop_timeout=STOP_S, parsed_options=_settings(options)
    )


def _settings(options: Options) -> Any:
    """Locust's own: users of a lost worker go to others at once, and what the page proposes is what runs.

    Neither its files nor its environment are read.
    """
    make: Any = argument_parser
    parser = make.get_empty_argument_parser(default_config_files=[])
    make.setup_parser_arguments(parser)
    wanted = ["--enable-rebalancing", "--users", str(options.users), "--spawn-rate", str(options.spawn_rate)]
    return parser.parse_args(wanted, env_vars={})


def _page(environment: Any, options: Options) -> Any:
    host = parse_address(options.bind)[0]
    click.echo(f"locust's page: http://{host}:{options.web_port}/", err=True)
    return environment.create_web_ui("" if host == "*" else host, options.web_port)


def _nobody() -> Any:
    raise AssertionError("a master makes no users")


_unseen: Callable[[Any], None] = lambda sight: None  # noqa: E731  # nobody sees anything here
