"""A worker of a distributed run: the users of one process, as many as its master says, and what they saw told to it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import Event
from locust import runners
from locust.env import Environment

from loadtest.gather import to_plain
from loadtest.master import OVER, TOLD
from loadtest.options import Options, parse_address
from loadtest.person import Crowd

SILENT_S = 15  # without a word of the master; locust's own minute leaves users running that nobody counts
TELL_S = 1.0  # between reports: what is told of the last moments of a worker that is killed
GOODBYE_MS = 1_000  # for the last words to leave


def apart(options: Options) -> Options:
    """The same run with users that no other worker has: names and think times of its own."""
    mark = uuid.uuid4()
    return replace(options, user_prefix=f"{options.user_prefix}{mark.hex[:8]}-", seed=mark.int)


class Worker:
    """One worker's side of the talk with its master."""

    def __init__(self, environment: Environment, crowd: Crowd) -> None:
        self._environment: Any = environment  # locust is typed in part
        self._crowd = crowd
        self._runner: Any = None
        self._is_over = False

    def run(self, master: str, stop: Event) -> bool:
        """Do what the master says until it ends the run, is lost, or ``stop`` is set.

        Returns:
            Whether there was a master.
        """
        runners.MASTER_HEARTBEAT_TIMEOUT, runners.WORKER_REPORT_INTERVAL = SILENT_S, TELL_S
        self._environment.events.report_to_master.add_listener(self._tell)
        joining = gevent.spawn(self._join, master)
        gevent.wait([joining, stop], count=1)
        if not joining.ready() or self._runner is None:
            joining.kill()
            return False
        over = gevent.spawn(self._runner.greenlet.join)
        gevent.wait([over, stop], count=1)
        self._leave()
        return True

    def _join(self, master: str) -> None:
        try:
            runner: Any = self._environment.create_worker_runner(*parse_address(master))
        except ConnectionError:
            return
        runner.register_message(OVER, self._finish)
        self._runner = runner

    def _finish(self, **_: Any) -> None:
        """The run is over: who is there now is who the summary tells of."""
        self._crowd.close()
        self._is_over = True

    def _tell(self, data: dict[str, Any], **_: Any) -> None:
        is_final = self._is_over and self._runner.state == runners.STATE_STOPPED
        data[TOLD] = to_plain(self._crowd.tally, self._crowd.ledger, is_final)

    def _leave(self) -> None:
        """Of its own accord: the master moves its users to others."""
        runner, events = self._runner, self._environment.events
        if not self._is_over:
            self._crowd.close()
            runner.stop()
            last: dict[str, Any] = {}
            events.report_to_master.fire(client_id=runner.client_id, data=last)
            runner.send_message("stats", last)
            events.quitting.fire(environment=self._environment)
            runner.quit()
        runner.client.close(linger=GOODBYE_MS)
