"""The grammar of HTTP/1.1 heads and chunked bodies, as regular expressions over bytes.

Each expression has its ABNF above it. Where ours is narrower than the RFC's, the comment says why. None of them can
backtrack by more than a constant factor: alternatives start with different bytes, and a repeated class is followed by
a byte outside it or is possessive. All are meant for ``fullmatch`` unless said otherwise, never for ``$``, which lets
a line feed pass.
"""

from __future__ import annotations

import re
from typing import Final

METHOD_BYTES: Final = 32  # the longest registered method, UPDATEREDIRECTREF, has 17
CHUNK_SIZE_DIGITS = 16  # 64 bits; also ends a flood of leading zeros
LENGTH_DIGITS = 19  # of 2**63 - 1

# tchar = "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" / "|" / "~" / DIGIT / ALPHA
# RFC 9110 section 5.6.2
_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# token = 1*tchar
TOKEN: Final = re.compile(_TCHAR + rb"+")

# field-vchar = VCHAR / obs-text, and within a value SP / HTAB. RFC 9110 section 5.5
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"
_VCHAR = rb"[\x21-\x7e\x80-\xff]"

# field-value = *field-content, with the OWS around it. RFC 9110 section 5.5
FIELD_VALUE = re.compile(_VALUE + rb"*")

# field-line = field-name ":" OWS field-value OWS; RFC 9112 section 5. Here as nearly all clients write it: exactly one
# SP, a value that is not empty and no OWS behind it. Any other spelling takes the careful way in `proxy.head`.
_PLAIN_FIELD = _TCHAR + rb"++: " + _VCHAR + _VALUE + rb"*+(?<![\t ])\r\n"

# absolute-path [ "?" query ]; RFC 9112 section 3.2.1. Wider than RFC 3986: any visible ASCII but "#" is relayed as it
# came, because clients send "|", "^", braces and brackets raw. "\" in a path is refused: some services read it as "/".
_PATH = rb"/[!\"$->@-\[\]-~]*"
_QUERY = rb"[!\"$-~]*"
_ORIGIN = rb"(" + _PATH + rb")(?:\?(" + _QUERY + rb"))?"
ORIGIN_FORM = re.compile(_ORIGIN)

# absolute-form = scheme "://" authority [ path ] [ "?" query ], for http and https only; RFC 9112 section 3.2.2
ABSOLUTE_FORM = re.compile(rb"(https?)://([^/?\\#]*)(" + _PATH + rb")?(?:\?(" + _QUERY + rb"))?", re.IGNORECASE)

# HTTP-version = "HTTP/" DIGIT "." DIGIT; RFC 9112 section 2.3
VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")

# request-line = method SP request-target SP HTTP-version; RFC 9112 section 3. Groups: method, target, minor version
REQUEST_LINE = re.compile(rb"(" + _TCHAR + rb"{1,%d}) ([!-~]+) HTTP/1\.([01])" % METHOD_BYTES)

# request-line in the plain spelling and the origin form, HTTP/1.1. Groups: method, target, path, query or None
PLAIN_REQUEST_LINE: Final = re.compile(rb"(" + _TCHAR + rb"{1,%d}) (" % METHOD_BYTES + _ORIGIN + rb") HTTP/1\.1")

# The beginning of a line that may still become a request line. For ``match``.
METHOD_BEGINNING = re.compile(_TCHAR + rb"{1,%d}(?: |\Z)" % METHOD_BYTES)

# start-line CRLF *( field-line CRLF ) CRLF; RFC 9112 section 2.1, in the plain spelling and the origin form.
# Groups: method, target, path, query or None, minor version, field lines
REQUEST_HEAD: Final = re.compile(
    rb"(" + _TCHAR + rb"{1,%d}) (" % METHOD_BYTES + _ORIGIN + rb") HTTP/1\.([01])\r\n((?:" + _PLAIN_FIELD + rb")*)\r\n"
)

# status-line = HTTP-version SP status-code SP [ reason-phrase ]; RFC 9112 section 4. Many servers leave out the SP
# before an empty reason. RFC 9110 section 15: codes outside 100-599 are invalid. Groups: minor version, code, reason
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (" + _VALUE + rb"*))?"
STATUS_LINE = re.compile(_STATUS_LINE)

# Groups: minor version, code, reason or None, field lines
RESPONSE_HEAD: Final = re.compile(_STATUS_LINE + rb"\r\n((?:" + _PLAIN_FIELD + rb")*)\r\n")

# What no head and no chunk line may have anywhere: a CTL but HTAB, a CR without LF, an LF without CR. For ``search``.
# A CR at the very end may be the first half of a CRLF. RFC 9112 section 2.2, RFC 9110 section 5.5
STRAY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?![\n]|\Z)|(?<!\r)\n")

# The value of one field line behind its SP, in the plain spelling: not empty and without OWS around it.
PLAIN_VALUE: Final = re.compile(_VCHAR + _VALUE + rb"*+(?<![\t ])")

# Content-Length = 1*DIGIT; RFC 9110 section 8.6
CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS)

# Sec-WebSocket-Key = base64-value-non-empty, of 16 bytes; RFC 6455 sections 4.1 and 4.3
WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")

# Max-Forwards = 1*DIGIT; RFC 9110 section 7.6.2
MAX_FORWARDS = re.compile(rb"[0-9]{1,9}")

# Host = uri-host [ ":" port ]; uri-host = IP-literal / IPv4address / reg-name; RFC 9110 section 7.2, RFC 3986 section
# 3.2.2. Narrower: no empty name; no "," (two Host lines that somebody joined); no IPvFuture and no zone. Groups: the
# host, inside of an IPv6 literal or None, port or None
HOST = re.compile(rb"(\[([0-9A-Fa-f:.]{2,45})\]|(?:[0-9A-Za-z\-._~!$&'()*+;=]++|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")

# The Host that nearly all clients send, with nothing to check beside its spelling.
PLAIN_HOST = re.compile(rb"[0-9A-Za-z\-.]{1,255}(?::[0-9]{1,4})?")

# chunk-size = 1*HEXDIG, its CRLF behind it: the common chunk without extensions. For ``match``. RFC 9112 section 7.1
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,%d})\r\n" % CHUNK_SIZE_DIGITS)

# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE; RFC 9110 section 5.6.4
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'

# chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ); RFC 9112 section 7.1.1
CHUNK_LINE_EXTENDED = re.compile(
    rb"([0-9A-Fa-f]{1,%d})((?:[\t ]*+;[\t ]*+" % CHUNK_SIZE_DIGITS
    + _TCHAR
    + rb"++(?:[\t ]*+=[\t ]*+(?:"
    + _TCHAR
    + rb"++|"
    + _QUOTED
    + rb"))?)*)"
)

# The beginning of a chunk line that may still become one.
CHUNK_LINE_BEGINNING = re.compile(rb"[0-9A-Fa-f]{1,%d}(?:[\t ;]" % CHUNK_SIZE_DIGITS + _VALUE + rb"*)?\r?")
