"""One request and its answer as a state machine: what may happen in which state, and what the shell does then.

States are integers and events are methods, because event objects cost 8 us a request; the table says the same as the
methods, and a test holds every method against it in every state.
"""

from __future__ import annotations

from typing import Final

from proxy.errors import InternalError

# States.
CONNECTING: Final = 0  # an endpoint is chosen; nothing of the request has been sent
WAITING: Final = 1  # the head was sent, the request's body may still be under way; no final response head yet
RELAYING: Final = 2  # the response head went to the client; bodies may flow both ways
TUNNEL: Final = 3  # both sides have agreed on WebSocket: bytes both ways, each way ends for itself
DONE: Final = 4

# What the shell does next.
NOTHING: Final = 0
SEND: Final = 1  # write the request's head and what is held of its body
RELAY: Final = 2  # write the response's head
FINISH: Final = 3  # the exchange is complete; both connections may be used again if their own framing allows
LINGER: Final = 4  # the answer ended before the request: close the upstream, half-close the client and discard
RETRY: Final = 5  # choose an endpoint again
ANSWER: Final = 6  # answer with an error of our own, close the upstream
TRUNCATE: Final = 7  # flush, then end both connections so that the client can tell that the answer is incomplete
CANCEL: Final = 8  # the client is gone: close both
FALL_BACK: Final = 9  # the arm is down: choose an endpoint of stable
SWITCH: Final = 10  # write the head of the 101, then what the client sent behind its request
PASS_END: Final = 11  # one side sends no more: tell the other one, whose own way stays open

MAX_ATTEMPTS: Final = 2  # contract item 15: one retry

# (state, event) -> every (action, next state) that may follow. A pair that is not here cannot happen.
TRANSITIONS: dict[tuple[int, str], frozenset[tuple[int, int]]] = {
    (CONNECTING, "connected"): frozenset({(SEND, WAITING)}),
    (CONNECTING, "connect_failed"): frozenset({(RETRY, CONNECTING), (FALL_BACK, CONNECTING), (ANSWER, DONE)}),
    (CONNECTING, "request_ended"): frozenset({(NOTHING, CONNECTING)}),
    (CONNECTING, "failed"): frozenset({(ANSWER, DONE)}),
    (CONNECTING, "downstream_lost"): frozenset({(CANCEL, DONE)}),
    (WAITING, "request_ended"): frozenset({(NOTHING, WAITING)}),
    (WAITING, "response_started"): frozenset({(RELAY, RELAYING)}),
    (WAITING, "switched"): frozenset({(SWITCH, TUNNEL)}),
    (WAITING, "upstream_lost"): frozenset({(RETRY, CONNECTING), (ANSWER, DONE)}),
    (WAITING, "failed"): frozenset({(ANSWER, DONE)}),
    (WAITING, "downstream_lost"): frozenset({(CANCEL, DONE)}),
    (RELAYING, "request_ended"): frozenset({(NOTHING, RELAYING)}),
    (RELAYING, "response_ended"): frozenset({(FINISH, DONE), (LINGER, DONE)}),
    (RELAYING, "upstream_lost"): frozenset({(TRUNCATE, DONE)}),
    (RELAYING, "failed"): frozenset({(TRUNCATE, DONE)}),
    (RELAYING, "downstream_lost"): frozenset({(CANCEL, DONE)}),
    (TUNNEL, "request_ended"): frozenset({(PASS_END, TUNNEL), (FINISH, DONE)}),
    (TUNNEL, "response_ended"): frozenset({(PASS_END, TUNNEL), (FINISH, DONE)}),
    (TUNNEL, "upstream_lost"): frozenset({(TRUNCATE, DONE)}),
    (TUNNEL, "failed"): frozenset({(TRUNCATE, DONE)}),
    (TUNNEL, "downstream_lost"): frozenset({(CANCEL, DONE)}),
}

_BEGUN: Final = (RELAYING, TUNNEL)  # the client has a head already: no other answer can be given
_REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))  # contract item 15


class Exchange:
    """One request on its way to one response.

    Attributes:
        state: `CONNECTING`, `WAITING`, `RELAYING`, `TUNNEL` or `DONE`.
        request_open: The request's body has not ended yet; in a tunnel, the client may send more.
        response_open: In a tunnel, the service may send more.
        attempts: Endpoints tried so far, at most `MAX_ATTEMPTS`.
    """

    __slots__ = ("attempts", "repeatable", "request_open", "response_open", "state")

    def __init__(self, method: bytes, has_body: bool) -> None:
        self.state = CONNECTING
        self.request_open = has_body
        self.repeatable = method in _REPEATABLE and not has_body
        self.attempts = 1

    def connected(self) -> int:
        """An upstream connection is there."""
        if self.state != CONNECTING:
            raise InternalError("connected out of state")
        self.state = WAITING
        return SEND

    def connect_failed(self, may_retry: bool, may_fall_back: bool) -> int:
        """No connection to the endpoint chosen: nothing was sent, so any method may go elsewhere.

        Args:
            may_retry: The arm has another endpoint, and the retry budget allows one more.
            may_fall_back: Stable takes the users of this arm when it is down.
        """
        if self.state != CONNECTING:
            raise InternalError("connect_failed out of state")
        if may_retry and self.attempts < MAX_ATTEMPTS:
            self.attempts += 1
            return RETRY
        if may_fall_back:
            self.attempts += 1
            return FALL_BACK
        self.state = DONE
        return ANSWER

    def request_ended(self) -> int:
        """The client has sent the whole request, or in a tunnel its last byte."""
        if self.state == DONE:
            raise InternalError("request_ended out of state")
        self.request_open = False
        return self._way_ended(self.response_open) if self.state == TUNNEL else NOTHING

    def _way_ended(self, is_other_open: bool) -> int:
        if is_other_open:
            return PASS_END
        self.state = DONE
        return FINISH

    def switched(self) -> int:
        """The service grants the protocol that the client asked for."""
        if self.state != WAITING:
            raise InternalError("switched out of state")
        self.state = TUNNEL
        self.request_open = self.response_open = True
        return SWITCH

    def response_started(self) -> int:
        """The final response head is there (interim ones change nothing)."""
        if self.state != WAITING:
            raise InternalError("response_started out of state")
        self.state = RELAYING
        return RELAY

    def response_ended(self) -> int:
        """The response is complete by its own framing, or in a tunnel by its last byte."""
        if self.state == RELAYING:
            self.state = DONE
            return LINGER if self.request_open else FINISH
        if self.state != TUNNEL:
            raise InternalError("response_ended out of state")
        self.response_open = False
        return self._way_ended(self.request_open)

    def upstream_lost(self, any_byte: bool, may_retry: bool) -> int:
        """The upstream connection ended, or broke the protocol, before the response was complete.

        Args:
            any_byte: Something of a response had come.
            may_retry: The retry budget allows one more.
        """
        if self.state in _BEGUN:
            self.state = DONE
            return TRUNCATE
        if self.state != WAITING:
            raise InternalError("upstream_lost out of state")
        if self.repeatable and not any_byte and may_retry and self.attempts < MAX_ATTEMPTS:
            self.attempts += 1
            self.state = CONNECTING
            return RETRY
        self.state = DONE
        return ANSWER

    def failed(self) -> int:
        """A time-out, a fault of the client, too much held, or the limit of an abort or a drain for streams."""
        if self.state == DONE:
            raise InternalError("failed out of state")
        action = TRUNCATE if self.state in _BEGUN else ANSWER
        self.state = DONE
        return action

    def downstream_lost(self) -> int:
        """The client's connection is gone."""
        if self.state == DONE:
            raise InternalError("downstream_lost out of state")
        self.state = DONE
        return CANCEL
