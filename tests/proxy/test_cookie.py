"""Finding cookies, and the signed one that carries the user key."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cookie import Seal, UserCookie, decode, encode, first_value, set_cookie
from proxy.keys import Secret
from tests.support.plans import NOW

SECRET = Secret(b"s" * 32)
NAME = "cohort_checkout"
MAX_AGE_S = 7_776_000
COOKIE = UserCookie(NAME, SECRET, MAX_AGE_S)
KEY = bytes(range(100, 116))


def pair(cookie: UserCookie = COOKIE, key: bytes = KEY, rank: int = 1, now: float = NOW) -> bytes:
    """``name=value`` as a browser returns it."""
    return cookie.line(key, rank, now, False).removeprefix(b"Set-Cookie: ").split(b";")[0]


TEXT = pair().partition(b"=")[2]


def test_the_line_has_the_attributes_of_a_first_party_cookie() -> None:
    """issue: HttpOnly, SameSite=Lax, Path=/, Secure where the client side is TLS."""
    line = COOKIE.line(KEY, 1, NOW, False)
    start = b"Set-Cookie: cohort_checkout=" + TEXT
    assert line == start + b"; Path=/; Max-Age=7776000; HttpOnly; SameSite=Lax\r\n"
    assert COOKIE.line(KEY, 1, NOW, True) == line.removesuffix(b"\r\n") + b"; Secure\r\n"
    assert set_cookie("a", b"", 0, False).startswith(b"Set-Cookie: a=; Path=/; Max-Age=0;")


@given(st.binary(min_size=16, max_size=16), st.integers(0, 255), st.floats(1, 4e9, allow_nan=False))
def test_what_is_written_is_read(key: bytes, rank: int, now: float) -> None:
    """Serialise then parse is the identity, for every key, rank and time before 2106."""
    assert COOKIE.read(pair(key=key, rank=rank, now=now), now) == (key, rank, False)


def test_the_text_is_short_and_plain() -> None:
    """56 characters that no Cookie parser quotes; nothing in it names a version, a user or a rollout."""
    assert len(TEXT) == 56
    assert TEXT.replace(b"-", b"").replace(b"_", b"").isalnum()
    assert b"canary" not in base64.urlsafe_b64decode(TEXT)


@pytest.mark.parametrize("place", range(42))
def test_no_bit_of_the_text_can_be_changed(place: int) -> None:
    """Version, key id, rank, expiry, user key and MAC: all of it is signed."""
    raw = bytearray(base64.urlsafe_b64decode(TEXT))
    for bit in range(8):
        raw[place] ^= 1 << bit
        assert COOKIE.read(b"cohort_checkout=" + base64.urlsafe_b64encode(raw), NOW) is None
        raw[place] ^= 1 << bit


def test_rank_and_expiry_cannot_be_swapped_between_cookies_of_one_user() -> None:
    """Parts of two genuine cookies are no genuine cookie."""
    one, two = (bytearray(base64.urlsafe_b64decode(pair(rank=r, now=NOW + r).partition(b"=")[2])) for r in (0, 1))
    for low, high in ((5, 6), (6, 10), (10, 26), (26, 42)):
        mixed = bytes(one[:low] + two[low:high] + one[high:])
        if mixed not in (bytes(one), bytes(two)):
            assert COOKIE.read(b"cohort_checkout=" + base64.urlsafe_b64encode(mixed), NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        b"", TEXT[:-1], TEXT[:-4], TEXT + b"A", TEXT + b"AAAA", TEXT + b"=", TEXT[:-1] + b"=", TEXT[:-2] + b"==",
        b'"' + TEXT + b'"', TEXT[:10] + b" " + TEXT[11:], TEXT[:10] + b"\x00" + TEXT[11:],
        TEXT[:10] + b"\xff" + TEXT[11:], TEXT[:10] + b"%2D" + TEXT[13:], TEXT.lower(), b"A" * 56, b"=" * 56,
        TEXT * 400,
    ],
    ids=[
        "empty", "cut", "group-cut", "longer", "group-longer", "padded", "pad-for-last", "pads-for-last", "quoted",
        "blank", "nul", "obs-text", "escaped", "lower", "zeros", "pads", "huge",
    ],
)  # fmt: skip
def test_a_malformed_text_is_no_cookie(text: bytes) -> None:
    """Forged or foreign values are ignored."""
    assert COOKIE.read(b"cohort_checkout=" + text, NOW) is None


def test_the_other_alphabet_of_base64_is_refused() -> None:
    """One spelling only: ``+`` and ``/`` decode to the same bytes elsewhere."""
    for number in range(200):
        text = pair(key=bytes([number]) * 16).partition(b"=")[2]
        other = text.replace(b"-", b"+").replace(b"_", b"/")
        if other != text:
            assert COOKIE.read(b"cohort_checkout=" + other, NOW) is None
            return
    raise AssertionError("no text with - or _ among 200")


@given(st.binary(max_size=64))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """Decoding is the inverse of encoding, and the text equals the standard library's without padding."""
    text = encode(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=")
    assert decode(text) == data
    if len(data) % 3:
        assert decode(text + b"=" * (-len(text) % 4)) is None
        last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        assert [c for c in last if decode(text[:-1] + bytes([c])) == data] == [text[-1]]


def test_a_cookie_of_another_name_is_foreign() -> None:
    """The name is in the MAC: a cookie of another rollout under our name is worth nothing."""
    other = UserCookie("cohort_basket", SECRET, MAX_AGE_S)
    stolen = pair(other).replace(b"cohort_basket", b"cohort_checkout")
    assert COOKIE.read(stolen, NOW) is None
    assert other.read(pair(other), NOW) == (KEY, 1, False)


def test_one_name_and_secret_is_one_cookie_for_two_installations() -> None:
    """surface.md: two installations share one by the same name and key."""
    assert UserCookie(NAME, SECRET, 60).read(pair(), NOW) == (KEY, 1, False)


def test_a_text_for_one_purpose_is_worth_nothing_for_another() -> None:
    """The user cookie, the pin and the link token cannot stand for each other, though one secret signed them."""
    body = bytes(21)
    assert Seal(b"cohort pin", NAME, SECRET, 21).verify(Seal(b"cohort user", NAME, SECRET, 21).sign(body)) is None


def test_a_seal_whose_text_could_be_spelt_twice_cannot_be_made() -> None:
    """Unused bits in the last character would make several texts of one cookie."""
    with pytest.raises(ValueError, match="unused bits"):
        Seal(b"cohort user", NAME, SECRET, 20)


def test_it_expires() -> None:
    """To the second, whatever the browser keeps."""
    assert COOKIE.read(pair(), NOW + MAX_AGE_S - 1) == (KEY, 1, True)
    assert COOKIE.read(pair(), NOW + MAX_AGE_S) is None


def test_it_is_due_when_half_of_its_life_is_over() -> None:
    """A user who comes back at least once in half a life is never lost; the rest of the time no answer is private."""
    assert COOKIE.read(pair(), NOW + MAX_AGE_S / 2) == (KEY, 1, False)
    assert COOKIE.read(pair(), NOW + MAX_AGE_S / 2 + 1) == (KEY, 1, True)


def test_a_clock_an_hour_or_a_day_off_changes_nobody() -> None:
    """reliability.md F21."""
    for skew in (-86_400, -3_600, 3_600, 86_400):
        assert COOKIE.read(pair(), NOW + skew) == (KEY, 1, False)


def test_rotation_keeps_every_user() -> None:
    """reliability.md F40: the previous secret verifies and the cookie is due; the current one signs."""
    rotated = UserCookie(NAME, Secret(b"t" * 32, SECRET.current), MAX_AGE_S)
    assert rotated.read(pair(), NOW) == (KEY, 1, True)
    assert rotated.read(pair(rotated), NOW) == (KEY, 1, False)
    assert COOKIE.read(pair(rotated), NOW) is None
    early = UserCookie(NAME, Secret(SECRET.current, b"t" * 32), MAX_AGE_S)  # first half of a rotation of many replicas
    assert early.read(pair(rotated), NOW) == (KEY, 1, True)
    assert UserCookie(NAME, Secret(b"u" * 32), MAX_AGE_S).read(pair(), NOW) is None


GENUINE = pair()


@pytest.mark.parametrize(
    "header",
    [
        b"a=b; %b; c=d", b"%b;", b"  %b  ; x", b";;;%b;;;", b"\t%b\t", b'===;;; bad key=1; "q; =x; %b; a', b"a=b;%b",
        b"cohort_checkout=; %b", b"cohort_checkout=forged; %b", b"cohort_checkout=" + b"A" * 56 + b"; %b",
        b'a="x; %b; y"', b"x\xff\xfe=\x80; %b", b"cohort_checkout; %b", b"= ; %b", b"cohort_checkout =x; %b",
    ],
    ids=[
        "amid", "end", "blanks", "semicolons", "tabs", "wire-case-CK-05", "no-blank", "empty-first", "forged-first",
        "form-first", "inside-quotes", "obs-text", "no-pair", "no-name", "blank-before-sign",
    ],
)  # fmt: skip
def test_neighbours_hide_nothing(header: bytes) -> None:
    """wire case CK-05: malformed neighbours must not hide the cookie; of one name the first that verifies counts."""
    assert COOKIE.read(header.replace(b"%b", GENUINE), NOW) == (KEY, 1, False)


@pytest.mark.parametrize(
    "header",
    [
        b"x" + GENUINE, GENUINE.replace(b"cohort_c", b"Cohort_c"), GENUINE.replace(b"=", b"2="), b"x=" + GENUINE,
        b"x y " + GENUINE, GENUINE.replace(b"=", b" ="), b"", b";", b"cohort_checkout",
    ],
    ids=["prefix", "case", "suffix", "in-a-value", "after-a-word", "blank-before-sign", "none", "semicolon", "bare"],
)  # fmt: skip
def test_only_the_exact_name_counts(header: bytes) -> None:
    """wire case CK-10: prefix and case traps."""
    assert COOKIE.read(header, NOW) is None


def test_of_two_genuine_ones_the_first_counts() -> None:
    """Browsers send the most specific path first."""
    assert COOKIE.read(pair(key=bytes(16)) + b"; " + pair(), NOW) == (bytes(16), 1, False)


def test_an_expired_one_does_not_hide_a_fresh_one() -> None:
    """The first that verifies and has not expired."""
    assert COOKIE.read(pair(now=NOW - MAX_AGE_S) + b"; " + pair(), NOW) == (KEY, 1, False)


@pytest.mark.parametrize(
    "header",
    [
        b"; ".join(b"c%d=%d" % (n, n) for n in range(10_000)),
        b"cohort_checkout=" * 20_000,
        b"cohort_checkout=; " * 20_000,
        b" " * 300_000 + b"cohort_checkout=x",
        b"=cohort_checkout" + (b" " * 20 + b"cohort_checkout=") * 10_000,
        b";" * 300_000,
    ],
    ids=["pairs", "repeats", "empty-repeats", "blanks", "blanks-between", "semicolons"],
)
def test_hostile_headers_cost_linear_time(header: bytes) -> None:
    """wire case CK-07: ten times the usual bound must not take seconds (quadratic would be minutes)."""
    assert COOKIE.read(header + b"; " + GENUINE, NOW) == (KEY, 1, False)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"uid=7", b"7"), (b"a=1; uid=7; uid=8", b"7"), (b'uid="7"', b'"7"'), (b"uid=a=b", b"a=b"), (b"uid=", b""),
        (b"uid= 7 ;x", b"7"), (b"uid=a b", b"a b"), (b"UID=7", None), (b"xuid=7", None), (b"x=uid=7", None),
        (b"", None),
    ],
    ids=["one", "first", "quotes", "sign", "empty", "blanks", "inner-blank", "case", "prefix", "in-a-value", "none"],
)  # fmt: skip
def test_the_first_value_of_a_name(header: bytes, value: bytes | None) -> None:
    """RFC 6265 section 5.4, read as servers do: pairs between semicolons, quotes are part of the value."""
    assert first_value(header, b"uid=") == value
