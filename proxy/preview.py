"""The preview: links and a page that pin a browser to a version and let it go again.

A pin is a signed cookie of its own. Its arm is in the MAC and not in the text: whoever reads the cookie learns nothing.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from proxy.cookie import Seal, place, set_cookie, value
from proxy.keys import Secret
from proxy.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.facts import Facts
    from proxy.http1 import Request

PIN_S = 7 * 86_400  # a forgotten pin ends by itself
EXPIRY_BYTES = 6
MAX_TARGET_BYTES = 2048  # of the page to return to

_TOKEN, _PIN = b"cohort token", b"cohort pin"


def make_token(secret: Secret, rollout: str, arm: str, expires: int) -> str:
    """The token of a preview link.

    Args:
        secret: The installation's preview secret.
        rollout: ``namespace/name``.
        arm: Name of the arm to pin to.
        expires: Unix seconds; a pin that the link makes ends then too.

    Returns:
        36 characters that need no escape in a URL. The arm is not among them.
    """
    return _token_seal(secret, rollout, arm).sign(_expiry(expires)).decode()


def check_token(secret: Secret, rollout: str, arm: str, token: str, now: float) -> int | None:
    """When a token for this rollout and arm expires, Unix seconds; None if it is not genuine or has expired."""
    return _expires(_token_seal(secret, rollout, arm), token.encode("utf-8", "replace"), now)


def _token_seal(secret: Secret, rollout: str, arm: str) -> Seal:
    return Seal(_TOKEN, f"{rollout}\0{arm}", secret, EXPIRY_BYTES)


def _expiry(seconds: float) -> bytes:
    return int(seconds).to_bytes(EXPIRY_BYTES, "big")


def _expires(seal: Seal, text: bytes, now: float) -> int | None:
    found = seal.verify(text)
    if found is None:
        return None
    expires = int.from_bytes(found[0], "big")
    return expires if expires > now else None


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """An answer of our own to a request below ``/.cohort/``.

    Attributes:
        status: Status code.
        lines: Complete header lines, without Content-Length and what concerns the connection.
        body: For HEAD too, which gets only its length.
    """

    status: int
    lines: bytes
    body: bytes


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:3em auto;padding:0 1em;color:#222;background:#fff}"
    "dt{color:#666}dd{margin:0 0 .5em;font-weight:600}form{display:inline-block;margin:0 .5em .5em 0}"
    "button,input{font:inherit;padding:.3em .8em}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
# The token in a link must not leak by Referer; "no-referrer" would make browsers send "Origin: null" with our forms.
_LINES = (
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: same-origin\r\n"
    f"Content-Security-Policy: default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'\r\n"
).encode()

_WHY = {
    "abort": "this rollout was aborted: everybody has the stable version",
    "outer": "the rollout in front of this one has chosen",
    "preview": "this browser is pinned by the preview",
    "split": "the share of users that the rollout has reached",
    "unkeyed": "a request that cannot keep a cookie",
    "route": "a route of this service: ",
    "header": "a header route of the rollout: ",
}


def why(reason: str) -> str:
    """A reason of the order of precedence in words."""
    kind, slash, name = reason.partition("/")
    return _WHY[kind] + (f" within the route {name}" if slash and kind == "split" else name)


def page(title: str, paragraphs: Iterable[str] = ()) -> bytes:
    """A whole HTML page without script; the paragraphs are HTML."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1>{''.join(paragraphs)}</html>\n"
    ).encode()


def refusal(status: int, title: str, text: str, extra: bytes = b"") -> LocalAnswer:
    """A page that says why nothing was done."""
    return LocalAnswer(status, _LINES + extra, page(title, [f"<p>{escape(text)}</p>"]))


NOT_FOUND = refusal(404, "Nothing here", "There is no such page below /.cohort/.")
_NOT_ALLOWED = refusal(405, "Not allowed", "This page takes GET, HEAD and POST.", b"Allow: GET, HEAD, POST\r\n")
_CROSS_SITE = refusal(403, "Refused", "Another site asked for this. Open the preview page itself and try again.")
_BAD_TOKEN = refusal(403, "This link does not work", "It has expired or is for another service. Ask for a new one.")
_NEED_TOKEN = refusal(403, "A link is needed", "Only a preview link pins a browser here: cohort preview makes one.")
_BAD_REQUEST = refusal(400, "Not understood", "Expected arm=NAME of a version of this rollout, release=1 or token=...")
_BAD_TARGET = refusal(400, "Not understood", "Expected to=/path, a path of this very site.")


class Preview:
    """The preview of one plan.

    Args:
        plan: Names the arms and says who may pin. Pins to ``canary`` stay good while no revision is on trial.
        secret: The installation's preview secret; it signs links and pins, for which its purposes differ.
        path: The page's path, normalised.

    Attributes:
        is_on: Else pins count for nothing.
    """

    def __init__(self, plan: Plan, secret: Secret, path: bytes) -> None:
        self._title = f"{plan.rollout.namespace}/{plan.rollout.name}"
        self._path = path
        self._public = plan.preview.access == "Public"
        self.is_on = plan.preview.access != "Disabled"
        self._cookie_name = f"cohort_{plan.rollout.name}_preview"
        self._needle = self._cookie_name.encode() + b"="
        self._arms = {arm.name: arm.revision for arm in plan.arms}
        names = tuple(dict.fromkeys((*self._arms, "stable", "canary")))
        self._pins = {name: Seal(_PIN, f"{self._cookie_name}\0{name}", secret, EXPIRY_BYTES) for name in names}
        self._tokens = {name: _token_seal(secret, self._title, name) for name in names}

    def pinned(self, cookies: bytes, now: float) -> str | None:
        """The arm that a browser is pinned to, if it is; cost without such a cookie: one search."""
        at = place(cookies, self._needle)
        while at >= 0:
            text = value(cookies, at)
            for name, seal in self._pins.items():
                if _expires(seal, text, now) is not None:
                    return name
            at = place(cookies, self._needle, at)
        return None

    def answer(self, facts: Facts, arm: str, reason: str, secure: bool, now: float) -> LocalAnswer:
        """Answer a request below ``/.cohort/``.

        Args:
            facts: Of the request; its path decides what is asked for.
            arm: The arm that this browser has, and why, as `reason` says.
            reason: As the order of precedence spells it.
            secure: Whether the client's side is TLS.
            now: Unix seconds.
        """
        request = facts.request
        if not self.is_on or facts.path != self._path:
            return NOT_FOUND
        if request.method == b"POST":
            return _CROSS_SITE if _is_cross_site(facts) else self._posted(facts, secure, now)
        if request.method not in (b"GET", b"HEAD"):
            return _NOT_ALLOWED
        if b"token" in facts.query:
            return self._linked(facts, secure, now)
        return LocalAnswer(200, _LINES, self._page(arm, reason, self.pinned(facts.cookies, now)))

    def _posted(self, facts: Facts, secure: bool, now: float) -> LocalAnswer:
        if b"token" in facts.query:
            return self._linked(facts, secure, now)
        if facts.query.get(b"release") == b"1":
            return self._see_other(facts, set_cookie(self._cookie_name, b"", 0, secure))
        name = facts.query.get(b"arm", b"").decode("latin-1")
        if name not in self._arms:
            return _BAD_REQUEST
        return self._pin(facts, name, now + PIN_S, secure, now) if self._public else _NEED_TOKEN

    def _linked(self, facts: Facts, secure: bool, now: float) -> LocalAnswer:
        for name, seal in self._tokens.items():
            expires = _expires(seal, facts.query[b"token"], now)
            if expires is not None:
                return self._pin(facts, name, min(expires, now + PIN_S), secure, now)
        return _BAD_TOKEN

    def _pin(self, facts: Facts, name: str, until: float, secure: bool, now: float) -> LocalAnswer:
        text = self._pins[name].sign(_expiry(until))
        return self._see_other(facts, set_cookie(self._cookie_name, text, int(until - now), secure))

    def _see_other(self, facts: Facts, cookie: bytes) -> LocalAnswer:
        target = facts.query.get(b"to", self._path)
        if not _is_local(target):
            return _BAD_TARGET
        lines = b"%bLocation: %b\r\n%b" % (_LINES, target, cookie)
        link = f'<p><a href="{escape(target.decode())}">Go on</a></p>'
        return LocalAnswer(303, lines, page("Done", [link]))

    def _page(self, arm: str, reason: str, pinned: str | None) -> bytes:
        facts = [("Version", f"{arm} ({self._arms.get(arm, '')})"), ("Why", why(reason))]
        if pinned is not None:
            facts.append(("Pinned to", pinned))
        parts = ["<p>What this browser has on the first page of this service:</p><dl>"]
        parts += [f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts]
        parts.append("</dl>")
        if self._public:
            parts += [self._button(f"arm={name}", f"Pin to {name}") for name in self._arms]
        else:
            parts.append(
                f'<form action="{escape(self._path.decode())}"><label>Token of a preview link '
                '<input name="token" required autocomplete="off"></label> <button>Pin</button></form>'
            )
        if pinned is not None:
            parts.append(self._button("release=1", "Let go"))
        return page(f"Preview of {self._title}", parts)

    def _button(self, query: str, text: str) -> str:
        action = escape(f"{self._path.decode()}?{query}")
        return f'<form method="post" action="{action}"><button>{escape(text)}</button></form>'


def _is_local(target: bytes) -> bool:
    """Whether a browser resolves a Location to a path of the very site: not ``//host``, which ``\\`` spells too."""
    return (
        target.startswith(b"/")
        and not target.startswith(b"//")
        and len(target) <= MAX_TARGET_BYTES
        and all(0x21 <= byte <= 0x7E and byte != 0x5C for byte in target)
    )


def _is_cross_site(facts: Facts) -> bool:
    """Whether another site's page made a browser send this (W3C Fetch Metadata; RFC 6454 for older browsers)."""
    request = facts.request
    site = request.first(b"sec-fetch-site")
    if site is not None and site not in (b"same-origin", b"none"):
        return True
    origin = request.first(b"origin")
    return origin is not None and origin.lower() not in _own_origins(request, facts.peer_trusted)


def _own_origins(request: Request, peer_trusted: bool) -> frozenset[bytes]:
    """The origins that this very site may have; a trusted peer may have rewritten Host and says so."""
    hosts = {request.host.lower()}
    if peer_trusted:
        hosts.add((request.first(b"x-forwarded-host") or request.host).lower())
    pairs = ((b"http", b":80"), (b"https", b":443"))
    return frozenset(b"%b://%b" % (scheme, host.removesuffix(port)) for host in hosts for scheme, port in pairs)
