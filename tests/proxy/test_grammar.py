"""Each expression by what it takes and what it leaves, and all of them on input made to be slow."""

from __future__ import annotations

import re
import time

import pytest

from proxy import grammar

EXPRESSIONS = {name: value for name, value in vars(grammar).items() if isinstance(value, re.Pattern)}
OBS_TEXT = bytes(range(0x80, 0x100))
VISIBLE = bytes(range(0x21, 0x7F))
CONTROLS = [bytes((code,)) for code in (*range(0x20), 0x7F) if code != 0x09]


def test_a_token_is_made_of_exactly_the_bytes_of_the_rfc() -> None:
    """RFC 9110 section 5.6.2: tchar. Letters and digits of other alphabets are none."""
    taken = {code for code in range(256) if grammar.TOKEN.fullmatch(bytes((code,)))}
    assert taken == set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def test_a_value_is_made_of_everything_but_controls() -> None:
    """RFC 9110 section 5.5: VCHAR, obs-text, SP and HTAB."""
    taken = {code for code in range(256) if grammar.FIELD_VALUE.fullmatch(bytes((code,)))}
    assert taken == {0x09, 0x20, *VISIBLE, *OBS_TEXT}


def test_a_target_is_relayed_with_any_visible_ascii_but_a_fragment_and_a_backslash_in_the_path() -> None:
    """Contract item 5. The question mark ends the path."""
    in_path = {code for code in range(256) if (m := grammar.ORIGIN_FORM.fullmatch(b"/%c" % code)) and m[2] is None}
    in_query = {code for code in range(256) if grammar.ORIGIN_FORM.fullmatch(b"/?%c" % code)}
    assert in_path == set(VISIBLE) - set(b"#\\?")
    assert in_query == set(VISIBLE) - set(b"#")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VERSION", b"HTTP/2.0"),
        ("REQUEST_LINE", b"GET * HTTP/1.0"),
        ("REQUEST_LINE", b"M-SEARCH http://t/ HTTP/1.1"),
        ("REQUEST_LINE", b"M" * 32 + b" / HTTP/1.1"),
        ("STATUS_LINE", b"HTTP/1.1 200 OK"),
        ("STATUS_LINE", b"HTTP/1.1 200 "),
        ("STATUS_LINE", b"HTTP/1.1 599"),
        ("STATUS_LINE", b"HTTP/1.0 404 Nicht gefunden \xfc\t!"),
        ("CONTENT_LENGTH", b"0005"),
        ("CONTENT_LENGTH", b"9223372036854775807"),
        ("HOST", b"a-b_c.example:8080"),
        ("HOST", b"t:"),
        ("HOST", b"[::1]:80"),
        ("HOST", b"[::ffff:192.0.2.1]"),
        ("HOST", b"xn--mnchen-3ya.example."),
        ("HOST", b"caf%C3%A9"),
        ("CHUNK_LINE_EXTENDED", b"5"),
        ("CHUNK_LINE_EXTENDED", b'aF;n=v;q="a b;\\"\\\\";m'),
        ("CHUNK_LINE_EXTENDED", b'5 ; n = v ;q\t=\t""'),
    ],
)
def test_takes(name: str, text: bytes) -> None:
    """The rule stands above each expression in proxy/grammar.py."""
    assert EXPRESSIONS[name].fullmatch(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VERSION", b"HTTP/1.10"),
        ("VERSION", b"http/1.1"),
        ("VERSION", b"HTTP/\xb2.0"),
        ("REQUEST_LINE", b"GET / HTTP/1.1\n"),
        ("REQUEST_LINE", b"GET  / HTTP/1.1"),
        ("REQUEST_LINE", b"GET /a b HTTP/1.1"),
        ("REQUEST_LINE", b"M" * 33 + b" / HTTP/1.1"),
        ("STATUS_LINE", b"HTTP/1.1 200OK"),
        ("STATUS_LINE", b"HTTP/1.1  200 OK"),
        ("STATUS_LINE", b"HTTP/1.1 099 X"),
        ("STATUS_LINE", b"HTTP/1.1 600 X"),
        ("STATUS_LINE", b"HTTP/1.1 2000 X"),
        ("STATUS_LINE", b"HTTP/1.2 200 OK"),
        ("CONTENT_LENGTH", b""),
        ("CONTENT_LENGTH", b"5\n"),
        ("CONTENT_LENGTH", b"1_0"),
        ("CONTENT_LENGTH", b"\xd9\xa5"),
        ("CONTENT_LENGTH", b"0" * 20),
        ("HOST", b""),
        ("HOST", b":80"),
        ("HOST", b"a,b"),
        ("HOST", b"a@b"),
        ("HOST", b"a b"),
        ("HOST", b"a/b"),
        ("HOST", b"t:80:80"),
        ("HOST", b"t:123456"),
        ("HOST", b"::1"),
        ("HOST", b"[fe80::1%25eth0]"),
        ("HOST", b"a%2"),
        ("HOST", b"\xc3\xbc"),
        ("CHUNK_LINE_EXTENDED", b"5 "),
        ("CHUNK_LINE_EXTENDED", b"5;"),
        ("CHUNK_LINE_EXTENDED", b"5;;a"),
        ("CHUNK_LINE_EXTENDED", b'5;a="b'),
        ("CHUNK_LINE_EXTENDED", b"5;a=b c"),
        ("CHUNK_LINE_EXTENDED", b"0x5"),
        ("CHUNK_LINE_EXTENDED", b"0" * 17),
    ],
)
def test_leaves(name: str, text: bytes) -> None:
    """The rule stands above each expression in proxy/grammar.py; the traps are those of numbers and of ``$``."""
    assert not EXPRESSIONS[name].fullmatch(text)


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_a_control_is_found_anywhere(control: bytes) -> None:
    """RFC 9112 section 2.2, RFC 9110 section 5.5; CR and LF count unless they are a pair."""
    assert grammar.STRAY.search(b"a" + control + b"b")
    assert not grammar.STRAY.search(b"a\r\n\tb\x80\r")


N = 200_000
HOSTILE = {
    "spaces": b"GET / HTTP/1.1\r\nX: a" + b" " * N + b"\x00",
    "trailing spaces": b"GET / HTTP/1.1\r\nX: a" + b" \t" * (N // 2) + b"\r\n\r\n",
    "words": b"GET / HTTP/1.1\r\nX: " + b"a " * (N // 2) + b"\r\n\r\n",
    "lines": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (N // 6) + b"X",
    "names": b"GET / HTTP/1.1\r\n" + b"X" * N,
    "reason": b"HTTP/1.1 200 " + b" " * N + b"\r\nX: " + b" a" * N,
    "host": b"a" * N + b"@",
    "escapes": b"%41" * (N // 3) + b"@",
    "slashes": b"/" * N + b"#",
    "queries": b"http://t/" + b"?" * N + b"#",
    "quoted": b'5;a="' + b"\\" * N,
    "quotes": b"5" + b';a="\\""' * (N // 7) + b"=",
    "blanks in extensions": b"5" + b" " * N + b";" + b" " * N + b"a" + b" " * N,
    "digits": b"0" * N,
    "CRs": b"\r" * N,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_input_makes_an_expression_slow(text: bytes) -> None:
    """House rule: linear time on hostile input. All expressions take some 10 ms; a quadratic one would take minutes."""
    start = time.process_time()
    for expression in EXPRESSIONS.values():
        expression.fullmatch(text)
        expression.match(text)
        expression.search(text[:2000])
    grammar.STRAY.search(text)
    assert time.process_time() - start < 5
