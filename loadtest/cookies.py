"""What one browser keeps of one site's cookies: small, because there is one jar a user (RFC 6265 section 5)."""

from __future__ import annotations

import math
from email.utils import mktime_tz, parsedate_tz

MAX_COOKIES = 50  # RFC 6265 section 6.1 asks browsers for at least 50 a domain


class CookieJar:
    """Cookies of one site by name; a name of two paths counts as one."""

    __slots__ = ("_cookies",)

    def __init__(self) -> None:
        self._cookies: dict[str, tuple[str, str, float]] = {}  # value, path, end in unix seconds

    def take(self, line: str, now: float) -> None:
        """Keep what a ``Set-Cookie`` value says; an end in the past removes the cookie.

        Args:
            line: The field's value. One without a name is ignored, as browsers do with an empty one.
            now: Unix seconds.
        """
        pair, *attributes = line.split(";")
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            return
        path, end = "/", math.inf
        settings = {key.strip().lower(): text.strip() for key, _, text in (a.partition("=") for a in attributes)}
        if settings.get("path", "").startswith("/"):
            path = settings["path"]
        if date := parsedate_tz(settings.get("expires", "")):
            end = mktime_tz(date)
        if settings.get("max-age", "").lstrip("-").isdecimal():
            end = now + int(settings["max-age"])
        if end <= now:
            self._cookies.pop(name, None)
        elif name in self._cookies or len(self._cookies) < MAX_COOKIES:
            self._cookies[name] = (value, path, end)

    def header(self, path: str, now: float) -> str:
        """The ``Cookie`` value for a request of this path; empty: none.

        Args:
            path: A request target; its query does not count.
            now: Unix seconds.
        """
        path = path.partition("?")[0]
        cookies = self._cookies.items()
        return "; ".join(f"{name}={value}" for name, (value, p, end) in cookies if end > now and _below(path, p))


def _below(path: str, cookie_path: str) -> bool:
    """RFC 6265 section 5.1.4."""
    return path == cookie_path or path.startswith(cookie_path if cookie_path.endswith("/") else cookie_path + "/")
