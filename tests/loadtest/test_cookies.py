"""The jar of one user."""

from __future__ import annotations

import pytest

from loadtest.cookies import MAX_COOKIES, CookieJar


@pytest.mark.parametrize(
    ("lines", "now", "header"),
    [
        pytest.param(["a=1", "b=2; Path=/; HttpOnly; SameSite=Lax"], 0, "a=1; b=2", id="session cookies"),
        pytest.param(["a=1", "a=2"], 0, "a=2", id="replaced"),
        pytest.param(["a=1", "a=; Max-Age=0"], 0, "", id="removed by age"),
        pytest.param(["a=1", "a=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], 0, "", id="removed by date"),
        pytest.param(["a=1; Max-Age=60"], 59, "a=1", id="not yet over"),
        pytest.param(["a=1; max-age=60"], 60, "", id="over"),
        pytest.param(["a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], 0, "a=1", id="age before date"),
        pytest.param(["a=1; Path=/shop", "b=2; Path=/c/"], 0, "", id="other paths"),
        pytest.param(["a=1; Path=/cart", "b=2; Path=/c", "c=3; Path=/cart/"], 0, "a=1", id="path by segments"),
        pytest.param(["=1", "x", "; a=1"], 0, "", id="no name"),
        pytest.param(["a=b=c=="], 0, "a=b=c==", id="equals signs in the value"),
        pytest.param(["a=1; Max-Age=-5"], 0, "", id="negative age"),
        pytest.param(["a=1; Max-Age=soon"], 0, "a=1", id="an age that is none"),
    ],
)
def test_a_cookie_is_kept_as_a_browser_keeps_it(lines: list[str], now: float, header: str) -> None:
    """RFC 6265 section 5."""
    jar = CookieJar()
    for line in lines:
        jar.take(line, 0)
    assert jar.header("/cart?x=1", now) == header


def test_a_flood_of_cookies_is_bounded() -> None:
    """A canary that sets cookies without end costs a user's memory no more than a browser's."""
    jar = CookieJar()
    for n in range(1000):
        jar.take(f"c{n}=1", 0)
    assert jar.header("/", 0).count("=") == MAX_COOKIES
