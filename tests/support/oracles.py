"""One message as three parsers read it: ours, llhttp (by httptools) and h11."""

from __future__ import annotations

from dataclasses import dataclass, field

import h11
import httptools

from proxy.body import body_reader
from proxy.errors import DownstreamError, ProxyError, UpstreamError
from proxy.http1 import (
    UNTIL_CLOSE,
    HeadLimits,
    Request,
    Response,
    parse_request,
    parse_response,
    request_head_end,
    response_head_end,
)

LIMITS = HeadLimits()
Fields = list[tuple[bytes, bytes]]


@dataclass
class Reading:
    """The first message in a stream, or as much of it as there is.

    Attributes:
        first: Method and target, or the status.
        fields: Lower-case names and values; of ours only those that go on.
        body: Without framing.
        trailers: As ``fields``.
        end: Bytes of the stream that belong to the message; None while it has not ended.
        keep_alive: Whether another message may come; None if the parser does not tell.
    """

    first: tuple[bytes, ...] = ()
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    end: int | None = None
    keep_alive: bool | None = None


def ours(stream: bytes, is_request: bool) -> tuple[Reading, Request | Response] | None:
    """Our reading and the head behind it; None if the message is refused or its head is not complete."""
    fault = DownstreamError if is_request else lambda status, message: UpstreamError("protocol", message)
    try:
        end = (request_head_end if is_request else response_head_end)(stream, LIMITS)
        if not end:
            return None
        message: Request | Response
        if is_request:
            message = parse_request(stream[:end], LIMITS)
            first: tuple[bytes, ...] = (message.method, message.target)
        else:
            message = parse_response(stream[:end], b"GET", LIMITS)
            first = (b"%d" % message.status,)
        reading = Reading(first, [(name, value) for name, _, value in message.fields], keep_alive=message.keep_alive)
        reader = body_reader(message.length, lambda text: fault(400, text))
        reading.body = reader.feed(stream[end:])
    except ProxyError:
        return None
    reading.trailers = [(name, value) for name, _, value in reader.trailers]
    if reader.done:
        reading.end = len(stream) - len(reader.rest)
    elif message.length == UNTIL_CLOSE:
        reading.keep_alive = False
    return reading, message


class _Listener:
    """What httptools calls."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser
        self.url = b""
        self._is_head = True
        self.is_done = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp leaves blanks behind a value.
        (self.reading.fields if self._is_head else self.reading.trailers).append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._is_head = False
        self.reading.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.reading.body += body

    def on_message_complete(self) -> None:
        self.is_done = True


def llhttp(stream: bytes, is_request: bool) -> Reading | None:
    """llhttp's reading, fed byte by byte to see where the message ends; None if it is refused. Strict by default."""
    listener = _Listener()
    parser = listener.parser = (httptools.HttpRequestParser if is_request else httptools.HttpResponseParser)(listener)
    for i in range(len(stream)):
        try:
            parser.feed_data(stream[i : i + 1])
        except httptools.HttpParserUpgrade:
            break  # the end is unknown, which no other reading equals
        except httptools.HttpParserError:
            return None
        if listener.is_done:
            listener.reading.end = i + 1
            break
    if listener.reading.keep_alive is None:
        return Reading()
    if isinstance(parser, httptools.HttpRequestParser):
        listener.reading.first = (parser.get_method(), listener.url)
    else:
        listener.reading.first = (b"%d" % parser.get_status_code(),)
    return listener.reading


def h11_reading(stream: bytes, is_request: bool) -> Reading | None:
    """h11's reading; None if it is refused."""
    connection = h11.Connection(h11.SERVER if is_request else h11.CLIENT, max_incomplete_event_size=1 << 20)
    if not is_request:
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "t")]))
        connection.send(h11.EndOfMessage())
    reading = Reading()
    try:
        connection.receive_data(stream)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                reading.first, reading.fields = (event.method, event.target), list(event.headers)
            elif isinstance(event, (h11.Response, h11.InformationalResponse)):
                reading.first, reading.fields = (b"%d" % event.status_code,), list(event.headers)
                if isinstance(event, h11.InformationalResponse):
                    reading.end = len(stream) - len(connection.trailing_data[0])
                    return reading
            elif isinstance(event, h11.Data):
                reading.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                reading.trailers = list(event.headers)
                reading.end = len(stream) - len(connection.trailing_data[0])
                if connection.their_http_version != b"1.0":  # h11 never keeps a connection of HTTP/1.0
                    reading.keep_alive = connection.their_state is not h11.MUST_CLOSE
                return reading
            else:
                return reading
    except h11.RemoteProtocolError:
        return None
