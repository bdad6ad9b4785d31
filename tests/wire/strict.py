"""HTTP/1.1 by the letter, for judging: every message of a stream, and the fault at which it stops being one.

Written by hand from RFC 9110 and RFC 9112, slowly and plainly. It shares nothing with the proxy's own parser and uses
no parser library, so that the two cannot be wrong in the same way by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

DIGITS = frozenset(b"0123456789")
HEX = frozenset(b"0123456789abcdefABCDEF")
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
TOKEN = LETTERS | DIGITS | frozenset(b"!#$%&'*+-.^_`|~")  # RFC 9110 section 5.6.2
VISIBLE = frozenset(range(0x21, 0x7F))
VALUE = VISIBLE | frozenset(b" \t") | frozenset(range(0x80, 0x100))  # RFC 9110 section 5.5, obs-text included
QUOTED = VALUE - frozenset(b'"\\')  # RFC 9110 section 5.6.4
HOST = LETTERS | DIGITS | frozenset(b"-._~!$&'()*+,;=%")  # RFC 3986 section 3.2.2, reg-name
TARGET = VISIBLE - frozenset(b"#")
LONGEST_HEAD = 1 << 20  # no proxy writes such a head; a stream without an end must not fill memory
LENGTH_DIGITS = 19  # of 63 bits; who takes more takes it for another number
BODYLESS = (204, 304)
NO_TRAILERS = frozenset((b"content-length", b"transfer-encoding", b"host", b"trailer", b"te", b"connection"))


class Fault(Exception):
    """The stream is not HTTP/1.1 from here on."""


@dataclass
class Message:
    """One request or response.

    Attributes:
        begin: Where it starts in its stream.
        end: Where it ends, or has come to so far.
        body: Its payload, chunk framing removed.
        framing: `none`, `length`, `chunked`, `close` or `tunnel`.
        complete: Its own framing says that it is whole.
        last_chunk: The chunk of size zero was there.
        may_lack_body: It may be the answer to HEAD.
    """

    begin: int
    end: int
    start_line: bytes
    fields: list[tuple[bytes, bytes]]
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    version: bytes = b""
    framing: str = "none"
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    complete: bool = False
    last_chunk: bool = False
    may_lack_body: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """Values of a field by its lower-case name."""
        return [value for own, value in self.fields if own.lower() == name]

    def options(self, name: bytes) -> list[bytes]:
        """The members of a list field, lower-case."""
        return [part.strip(b" \t").lower() for value in self.all(name) for part in value.split(b",")]

    @property
    def closes(self) -> bool:
        """Nothing can follow it on its connection."""
        options = self.options(b"connection")
        return b"close" in options or (self.version == b"HTTP/1.0" and b"keep-alive" not in options)


class Reader:
    """Takes one direction of one connection apart.

    Attributes:
        stream: All bytes so far.
        at: Up to where they are understood.
        messages: Whole ones and the one that is under way.
        fault: Why the stream stopped being HTTP, None while it is.
        tunnel: Bytes from here on are no HTTP.
    """

    def __init__(self) -> None:
        self.stream = bytearray()
        self.at = 0
        self.messages: list[Message] = []
        self.fault: str | None = None
        self.tunnel = False
        self._left = 0
        self._state: Callable[[], bool] = self._head

    @property
    def current(self) -> Message | None:
        """The message that is under way; its head is complete."""
        return self.messages[-1] if self.messages and not self.messages[-1].complete else None

    @property
    def is_partial(self) -> bool:
        """Something has begun and is not whole."""
        return not self.tunnel and (self.current is not None or self.at < len(self.stream))

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self.stream += data
        try:
            while self.fault is None and not self.tunnel and self._state():
                pass
        except Fault as fault:
            self.fault = str(fault)

    def end(self, is_reset: bool = False) -> None:
        """The stream is over; a body that lasts until then is whole unless it was cut by a reset."""
        message = self.current
        if message is None or is_reset or self.fault is not None:
            return
        if message.framing == "close" or (message.may_lack_body and not message.body):
            message.complete = True

    # --- heads

    def _head(self) -> bool:
        if self.at == len(self.stream):
            return False
        end = self.stream.find(b"\r\n\r\n", self.at)
        if end < 0:
            _check_lines(bytes(self.stream[self.at :]), "head")
            if len(self.stream) - self.at > LONGEST_HEAD:
                raise Fault(f"a head of more than {LONGEST_HEAD} bytes")
            return False
        start_line, *lines = bytes(self.stream[self.at : end]).split(b"\r\n")
        for line in (start_line, *lines):
            _check_lines(line, "head")
        message = Message(self.at, end + 4, start_line, [read_field(line) for line in lines])
        self._start(message)
        self.at = end + 4
        self.messages.append(message)
        return self._frame(message)

    def _start(self, message: Message) -> None:
        raise NotImplementedError

    def _frame(self, message: Message) -> bool:
        raise NotImplementedError

    def _finish(self, message: Message) -> bool:
        message.complete = True
        message.end = self.at
        self._state = self._head
        return True

    def _declared(self, message: Message) -> None:
        """Read the framing fields: at most one of them, once. RFC 9112 section 6."""
        lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise Fault(f"{len(lengths)} Content-Length and {len(codings)} Transfer-Encoding fields")
        if codings:
            if codings[0].lower() != b"chunked":
                raise Fault(f"Transfer-Encoding: {codings[0]!r}")
            message.framing = "chunked"
        elif lengths:
            if not lengths[0] or not set(lengths[0]) <= DIGITS:
                raise Fault(f"Content-Length: {lengths[0]!r}")
            if len(lengths[0].lstrip(b"0")) > LENGTH_DIGITS:
                raise Fault(f"Content-Length: {lengths[0][:40]!r}")
            self._left = int(lengths[0].lstrip(b"0") or b"0")
            message.framing = "length"

    def _read_body(self, message: Message) -> bool:
        if message.framing == "length" and self._left:
            self._state = self._length
        elif message.framing == "chunked":
            self._state = self._size
        elif message.framing == "close":
            self._state = self._rest
        else:
            return self._finish(message)
        return True

    # --- bodies

    def _length(self) -> bool:
        message = self.messages[-1]
        part = self.stream[self.at : self.at + self._left]
        message.body += part
        self.at += len(part)
        self._left -= len(part)
        message.end = self.at
        return self._finish(message) if not self._left else False

    def _rest(self) -> bool:
        message = self.messages[-1]
        message.body += self.stream[self.at :]
        self.at = message.end = len(self.stream)
        return False

    def _line(self, what: str) -> bytes | None:
        end = self.stream.find(b"\r\n", self.at)
        line = bytes(self.stream[self.at : end if end >= 0 else len(self.stream)])
        _check_lines(line, what)
        if end < 0:
            if len(line) > LONGEST_HEAD:
                raise Fault(f"{what} of more than {LONGEST_HEAD} bytes")
            return None
        self.at = end + 2
        return line

    def _size(self) -> bool:
        line = self._line("chunk size")
        if line is None:
            return False
        message = self.messages[-1]
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            self._extension(extension)
        if not digits or len(digits) > 16 or not set(digits) <= HEX:
            raise Fault(f"chunk size {line[:40]!r}")
        self._left = int(digits, 16)
        if self._left:
            self._state = self._chunk
        else:
            message.last_chunk = True
            self._state = self._trailer
        return True

    def _extension(self, extension: bytes) -> None:
        raise Fault(f"chunk extension {extension[:40]!r}")

    def _chunk(self) -> bool:
        message = self.messages[-1]
        part = self.stream[self.at : self.at + self._left]
        message.body += part
        self.at += len(part)
        self._left -= len(part)
        message.end = self.at
        if self._left:
            return False
        self._state = self._chunk_end
        return True

    def _chunk_end(self) -> bool:
        ending = bytes(self.stream[self.at : self.at + 2])
        if not b"\r\n".startswith(ending):
            raise Fault(f"{ending!r} behind a chunk")
        if len(ending) < 2:
            return False
        self.at += 2
        self._state = self._size
        return True

    def _trailer(self) -> bool:
        line = self._line("trailer")
        if line is None:
            return False
        message = self.messages[-1]
        if not line:
            return self._finish(message)
        name, value = read_field(line)
        if name.lower() in NO_TRAILERS:
            self._forbidden_trailer(name)
        message.trailers.append((name, value))
        return True

    def _forbidden_trailer(self, name: bytes) -> None:
        raise Fault(f"{name!r} as a trailer")


class RequestReader(Reader):
    """Requests as a good proxy writes them: HTTP/1.1, one Host, one framing, origin form, nothing optional."""

    def _start(self, message: Message) -> None:
        parts = message.start_line.split(b" ")
        if len(parts) != 3:
            raise Fault(f"request line {message.start_line[:80]!r}")
        message.method, message.target, message.version = parts
        if not message.method or not set(message.method) <= TOKEN:
            raise Fault(f"method {message.method[:40]!r}")
        self._check_version(message)
        self._check_target(message)
        self._check_host(message)

    def _check_version(self, message: Message) -> None:
        if message.version != b"HTTP/1.1":
            raise Fault(f"version {message.version!r}")

    def _check_target(self, message: Message) -> None:
        target = message.target
        is_asterisk = target == b"*" and message.method == b"OPTIONS"
        if not is_asterisk and not (target.startswith(b"/") and set(target) <= TARGET):
            raise Fault(f"target {target[:80]!r}")

    def _check_host(self, message: Message) -> None:
        hosts = message.all(b"host")
        if len(hosts) != 1 or not is_authority(hosts[0]):
            raise Fault(f"Host: {hosts!r}")

    def _frame(self, message: Message) -> bool:
        self._declared(message)
        return self._read_body(message)


class ClientRequestReader(RequestReader):
    """Requests as a client may write them: everything that RFC 9112 lets through, nothing that it does not.

    The reading that a proxy's own must agree with: it may refuse more, it must not read other requests.
    """

    def _head(self) -> bool:
        if self.messages and self.messages[-1].closes:
            return False  # RFC 9112 section 9.6: nothing behind it is a request
        while self.stream.startswith(b"\r\n", self.at):
            self.at += 2  # RFC 9112 section 2.2
        if self.stream[self.at : self.at + 2] == b"\r":
            return False
        return super()._head()

    def _check_version(self, message: Message) -> None:
        if message.version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise Fault(f"version {message.version!r}")

    def _check_target(self, message: Message) -> None:
        target = message.target
        for scheme in (b"http://", b"https://"):
            if target.lower().startswith(scheme):
                authority = target[len(scheme) :].partition(b"/")[0].partition(b"?")[0]
                if not is_authority(authority) or not set(target) <= TARGET:
                    raise Fault(f"target {target[:80]!r}")
                return
        super()._check_target(message)

    def _check_host(self, message: Message) -> None:
        hosts = message.all(b"host")
        if not hosts and message.version == b"HTTP/1.0":
            return
        if len(hosts) != 1 or (hosts[0] and not is_authority(hosts[0])):
            raise Fault(f"Host: {hosts!r}")

    def _declared(self, message: Message) -> None:
        super()._declared(message)
        if message.framing == "chunked" and message.version == b"HTTP/1.0":
            raise Fault("Transfer-Encoding in HTTP/1.0")

    def _extension(self, extension: bytes) -> None:
        """RFC 9112 section 7.1.1: names with tokens or quoted strings as values, blanks around them."""
        if not is_extension(extension):
            raise Fault(f"chunk extension {extension[:40]!r}")

    def _forbidden_trailer(self, name: bytes) -> None:
        """A recipient ignores it: RFC 9110 section 6.5.1."""


class ResponseReader(Reader):
    """Responses to given requests.

    Attributes:
        finals: Responses other than interim ones; 101 is the last of its connection.

    Args:
        exact: As a good proxy writes them; else whatever a service may write and still be understood.
        versions: That they may have.
    """

    def __init__(self, exact: bool = True, versions: Sequence[bytes] = (b"HTTP/1.1",)) -> None:
        super().__init__()
        self._exact = exact
        self._versions = versions
        self._methods: list[bytes] = []
        self.finals: list[Message] = []

    def expect(self, method: bytes) -> None:
        """One more request was sent; ``HEAD?`` for one whose method may not have been understood."""
        self._methods.append(method)

    @property
    def owed(self) -> int:
        """Requests that have not been answered."""
        is_open = bool(self.finals) and not self.finals[-1].complete
        return len(self._methods) - len(self.finals) + is_open

    def _head(self) -> bool:
        if not self._exact and self.at < len(self.stream) and len(self.finals) >= len(self._methods):
            raise Fault("bytes that answer no request")
        return super()._head()

    def _extension(self, extension: bytes) -> None:
        if self._exact or not is_extension(extension):
            super()._extension(extension)

    def _forbidden_trailer(self, name: bytes) -> None:
        if self._exact:
            super()._forbidden_trailer(name)

    def _start(self, message: Message) -> None:
        version, _, rest = message.start_line.partition(b" ")
        code, space, reason = rest[:3], rest[3:4], rest[4:]
        if version not in self._versions:
            raise Fault(f"version {version[:40]!r}")
        if len(code) != 3 or not set(code) <= DIGITS or not 100 <= int(code) <= 599:
            raise Fault(f"status line {message.start_line[:80]!r}")
        if (space != b" " and (self._exact or rest[3:])) or not set(reason) <= VALUE:
            raise Fault(f"status line {message.start_line[:80]!r}")
        message.version, message.status = version, int(code)

    def _frame(self, message: Message) -> bool:
        answered = len(self.finals)
        method = self._methods[answered] if answered < len(self._methods) else b""
        if message.status >= 200 or message.status == 101:
            self.finals.append(message)
        if message.status < 200:
            if self._exact and (message.all(b"content-length") or message.all(b"transfer-encoding")):
                raise Fault(f"{message.status} with a framing field")
            if message.status == 101:
                self.tunnel = True
                message.framing = "tunnel"
            return self._finish(message)
        self._declared(message)
        if message.status == 204 and message.framing != "none" and self._exact:
            raise Fault("204 with a framing field")
        if method == b"HEAD" or message.status in BODYLESS:
            return self._finish(message)
        message.may_lack_body = method == b"HEAD?"
        if message.framing == "none":
            message.framing = "close"
            if self._exact and b"close" not in message.options(b"connection"):
                raise Fault("a body that lasts until the end, without Connection: close")
        return self._read_body(message)


def read_field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of a field line; RFC 9112 section 5.

    Raises:
        Fault: No colon, a name that is no token, or a control byte in the value.
    """
    name, colon, value = line.partition(b":")
    if not colon or not name or not set(name) <= TOKEN:
        raise Fault(f"field line {line[:80]!r}")
    if not set(value) <= VALUE:
        raise Fault(f"value of field line {line[:80]!r}")
    return name, value.strip(b" \t")


def is_authority(text: bytes) -> bool:
    """``uri-host [":" port]`` with a host; RFC 9110 section 7.2."""
    host, colon, port = text.rpartition(b":")
    if not colon or b"]" in port:
        host, port = text, b""
    if not set(port) <= DIGITS or len(port) > 5:
        return False
    if host.startswith(b"["):
        return host.endswith(b"]") and len(host) > 2 and set(host[1:-1]) <= HOST | frozenset(b":")
    return bool(host) and set(host) <= HOST


def is_extension(text: bytes) -> bool:
    """What may stand behind the first semicolon of a chunk-size line; RFC 9112 section 7.1.1."""
    at, size = 0, len(text)

    def run(allowed: frozenset[int]) -> int:
        nonlocal at
        start = at
        while at < size and text[at] in allowed:
            at += 1
        return at - start

    blanks = frozenset(b" \t")
    while True:
        run(blanks)
        if not run(TOKEN):
            return False
        run(blanks)
        if text[at : at + 1] == b"=":
            at += 1
            run(blanks)
            if text[at : at + 1] == b'"':
                at += 1
                while run(QUOTED) or text[at : at + 1] == b"\\":
                    if text[at : at + 1] == b"\\":
                        if at + 1 >= size or text[at + 1] not in VALUE:
                            return False
                        at += 2
                if text[at : at + 1] != b'"':
                    return False
                at += 1
            elif not run(TOKEN):
                return False
            run(blanks)
        if at == size:
            return True
        if text[at : at + 1] != b";":
            return False
        at += 1


def _check_lines(data: bytes, what: str) -> None:
    """No CR without LF, no LF without CR; a CR at the very end may still get its LF."""
    plain = data.replace(b"\r\n", b"")
    if b"\n" in plain:
        raise Fault(f"an LF without CR in a {what}: {data[:80]!r}")
    if b"\r" in plain[:-1] or (plain.endswith(b"\r") and not data.endswith(b"\r")):
        raise Fault(f"a CR without LF in a {what}: {data[:80]!r}")
