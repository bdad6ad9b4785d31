"""Preview links, pins and the page."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest

from proxy.decide import Splitter
from proxy.keys import Secret
from proxy.preview import PIN_S, LocalAnswer, check_token, make_token
from tests.support.plans import KEYS, MINTED, NOW, arms, cookie_of, decide, splitter

ROLLOUT = "shop/checkout"
PATH = "/.cohort/preview"
PUBLIC: dict[str, Any] = {"preview": {"access": "Public"}}
TOKEN: dict[str, Any] = {"preview": {"access": "Token"}}


def local(chosen: Splitter, target: str = PATH, *lines: str, **sent: Any) -> LocalAnswer:
    """The answer of our own to a request."""
    answer = decide(chosen, target, *lines, **sent).local
    assert answer is not None
    return answer


def header(answer: LocalAnswer, name: str) -> str:
    """The value of a header line, empty if there is none."""
    found = re.search(rf"^{name}: (.*)\r$", answer.lines.decode(), re.MULTILINE)
    return found[1] if found else ""


def pin_of(answer: LocalAnswer) -> str:
    """The Cookie line that a browser sends after an answer."""
    return cookie_of(f"Set-Cookie: {header(answer, 'Set-Cookie')}".encode())


def token(arm: str = "canary", ttl_s: int = 3600, secret: Secret = KEYS.preview, rollout: str = ROLLOUT) -> str:
    return make_token(secret, rollout, arm, int(NOW) + ttl_s)


class Page(HTMLParser):
    """What a browser makes of a page: its text, its forms' actions, its style."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.posts: list[str] = []
        self.text = self.style = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "form" and dict(attrs).get("method") == "post":
            self.posts.append(dict(attrs)["action"] or "")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "style" and not self.style:
            self.style = data
        self.text += data


# Tokens


def test_a_token_says_until_when_and_for_what() -> None:
    """The contract with `cohort preview`."""
    text = token()
    assert re.fullmatch(r"[A-Za-z0-9_-]{36}", text)
    assert check_token(KEYS.preview, ROLLOUT, "canary", text, NOW) == NOW + 3600
    assert check_token(KEYS.preview, ROLLOUT, "canary", text, NOW + 3600) is None
    assert check_token(KEYS.preview, ROLLOUT, "stable", text, NOW) is None
    assert check_token(KEYS.preview, "shop/basket", "canary", text, NOW) is None
    assert check_token(Secret(b"x" * 32), ROLLOUT, "canary", text, NOW) is None
    assert check_token(Secret(b"x" * 32, KEYS.preview.current), ROLLOUT, "canary", text, NOW) == NOW + 3600


@pytest.mark.parametrize("text", ["", "x", "é" * 36, "\ud800" * 12, "A" * 36, "=" * 36, token()[:-1], token() + "A"])
def test_what_is_no_token_is_refused(text: str) -> None:
    """Whatever stands in a query."""
    assert check_token(KEYS.preview, ROLLOUT, "canary", text, NOW) is None


# Links


def test_a_link_pins_at_once_and_leads_to_the_page() -> None:
    """surface.md: a link with a valid token pins at once."""
    chosen = splitter(**TOKEN, arms=arms(0))
    answer = local(chosen, f"{PATH}?token={token()}")
    assert (answer.status, header(answer, "Location")) == (303, PATH)
    decision = decide(chosen, "/", pin_of(answer))
    assert (decision.arm, decision.reason, decision.source) == (1, "preview", "forced")


def test_a_link_may_lead_to_a_page_of_the_site() -> None:
    """An optional ``to``, as people send links to what they want to show."""
    answer = local(splitter(**TOKEN), f"{PATH}?token={token()}&to=/cart%3Fid=7%26x%23top")
    assert (answer.status, header(answer, "Location")) == (303, "/cart?id=7&x#top")


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example", "https://evil.example", "/%5Cevil.example", "%2F%2Fevil.example", "evil", "",
        "/a%0d%0aX:%20y", "/a%00", "/%09/evil.example", "/a%20b", "/%C3%A9", "javascript:alert(1)", "/a%5Cb",
        "/" + "a" * 3000, "+/a",
    ],
)  # fmt: skip
@pytest.mark.parametrize("query", ["token=" + token(), "release=1"], ids=["pin", "release"])
def test_no_redirect_leaves_the_site(to: str, query: str) -> None:
    """An open redirect on a trusted name is a phisher's tool."""
    answer = local(splitter(**TOKEN), f"{PATH}?{query}&to={to}", method="POST")
    assert (answer.status, header(answer, "Location"), header(answer, "Set-Cookie")) == (400, "", "")
    assert b"evil" not in answer.lines + answer.body


@pytest.mark.parametrize(
    "text",
    [
        token(ttl_s=0),
        token(ttl_s=-1),
        token(rollout="shop/basket"),
        token(secret=Secret(b"x" * 32)),
        "",
        "x",
        token()[1:],
    ],
    ids=["just-expired", "expired", "other-rollout", "other-secret", "empty", "junk", "cut"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_bad_token_pins_nobody(text: str, method: str) -> None:
    """Told in constant text."""
    answer = local(splitter(**TOKEN), f"{PATH}?token={text}&arm=canary", method=method)
    assert (answer.status, header(answer, "Set-Cookie")) == (403, "")


def test_a_pin_ends_with_its_link_and_after_seven_days_at_the_latest() -> None:
    """Who was let in for an hour is not in for a week."""
    chosen = splitter(**TOKEN)
    for ttl_s, life_s in ((3600, 3600), (30 * 86_400, PIN_S)):
        answer = local(chosen, f"{PATH}?token={token(ttl_s=ttl_s)}")
        assert f"; Max-Age={life_s}; " in header(answer, "Set-Cookie")
        assert decide(chosen, "/", pin_of(answer), now=NOW + life_s - 1).reason == "preview"
        assert decide(chosen, "/", pin_of(answer), now=NOW + life_s).reason == "split"


# The pin


def test_the_pin_is_a_cookie_with_safe_attributes_that_does_not_say_the_arm() -> None:
    """surface.md, on the wire: signed with its own name in the MAC, never the arm."""
    plain, secure = (header(local(splitter(**PUBLIC), f"{PATH}?arm=canary", method="POST", secure=s), "Set-Cookie")
                     for s in (False, True))  # fmt: skip
    assert re.fullmatch(
        r"cohort_checkout_preview=[\w-]{36}; Path=/; Max-Age=604800; HttpOnly; SameSite=Lax", plain, re.ASCII
    )
    assert secure == plain + "; Secure"


@pytest.mark.parametrize(
    "cookie",
    [
        "cohort_checkout_preview=", "cohort_checkout_preview=canary", "cohort_checkout_preview=" + "A" * 36,
        "cohort_checkout_preview=" + token(), "cohort_checkout_preview=" + token("stable"),
    ],
    ids=["empty", "name", "form", "a-link's-token", "another-token"],
)  # fmt: skip
def test_a_forged_pin_counts_for_nothing(cookie: str) -> None:
    """A link's token is no pin either: its end would not be ours to choose."""
    assert decide(splitter(**PUBLIC), "/", f"Cookie: {cookie}").reason == "split"


def test_a_pin_of_another_rollout_counts_for_nothing() -> None:
    """The name is in the MAC."""
    other = splitter(**PUBLIC, rollout={"namespace": "shop", "name": "basket", "uid": "1"})
    cookie = pin_of(local(other, f"{PATH}?arm=canary", method="POST"))
    assert decide(other, "/", cookie).reason == "preview"
    assert decide(splitter(**PUBLIC), "/", cookie.replace("basket", "checkout")).reason == "split"


def test_the_first_genuine_pin_of_several_counts() -> None:
    """As with the user's cookie."""
    chosen = splitter(**PUBLIC, arms=arms(0))
    pin = pin_of(local(chosen, f"{PATH}?arm=canary", method="POST"))
    assert decide(chosen, "/", "Cookie: cohort_checkout_preview=x", pin).arm == 1


def test_each_arm_can_be_pinned() -> None:
    """A third arm too; names are the plan's."""
    chosen = splitter(**PUBLIC, arms=arms(10, 10))
    for index, name in enumerate(("stable", "canary", "baseline")):
        answer = local(chosen, f"{PATH}?arm={name}", method="POST")
        assert decide(chosen, "/", pin_of(answer)).arm == index


def test_a_pin_to_an_arm_that_is_gone() -> None:
    """To the canary it means stable while nothing is on trial; to any other arm it counts for nothing."""
    chosen = splitter(**PUBLIC, arms=arms(10, 10))
    pins = {name: pin_of(local(chosen, f"{PATH}?arm={name}", method="POST")) for name in ("canary", "baseline")}
    later = splitter(**PUBLIC, revision=None, arms=arms())
    canary, gone = decide(later, "/", pins["canary"]), decide(later, "/", pins["baseline"])
    assert (canary.arm, canary.reason, gone.reason) == (0, "preview", "split")


def test_rotating_the_preview_secret_keeps_pins() -> None:
    """The previous secret verifies."""
    pin = pin_of(local(splitter(**PUBLIC), f"{PATH}?arm=canary", method="POST"))
    others = [getattr(KEYS, name) for name in KEYS.__slots__]
    others[3] = Secret(b"n" * 32, KEYS.preview.current)
    assert decide(splitter(keys=KEYS.__class__(*others), **PUBLIC), "/", pin).reason == "preview"
    others[3] = Secret(b"n" * 32)
    assert decide(splitter(keys=KEYS.__class__(*others), **PUBLIC), "/", pin).reason == "split"


# Who may pin


def test_everybody_may_pin_where_access_is_public() -> None:
    """And let go again."""
    chosen = splitter(**PUBLIC, arms=arms(0))
    answer = local(chosen, f"{PATH}?arm=canary", method="POST")
    assert (answer.status, header(answer, "Location")) == (303, PATH)
    assert decide(chosen, "/", pin_of(answer)).arm == 1
    released = local(chosen, f"{PATH}?release=1", pin_of(answer), method="POST")
    assert released.status == 303
    assert header(released, "Set-Cookie").startswith("cohort_checkout_preview=; Path=/; Max-Age=0; ")
    assert decide(chosen, "/", pin_of(released)).reason == "split"


def test_only_a_token_pins_where_access_is_token() -> None:
    """Not even a browser that is pinned already; letting go needs none."""
    chosen = splitter(**TOKEN)
    pin = pin_of(local(chosen, f"{PATH}?token={token()}"))
    for lines in ([], [pin]):
        answer = local(chosen, f"{PATH}?arm=canary", *lines, method="POST")
        assert (answer.status, header(answer, "Set-Cookie")) == (403, "")
    assert local(chosen, f"{PATH}?release=1", pin, method="POST").status == 303
    assert local(chosen, f"{PATH}?token={token()}", method="POST").status == 303


def test_disabled_means_no_page_and_no_pins() -> None:
    """surface.md: Disabled is the default; pins and links that are still about count for nothing."""
    pin = pin_of(local(splitter(**PUBLIC), f"{PATH}?arm=canary", method="POST"))
    chosen = splitter()
    assert decide(chosen, "/", pin).reason == "split"
    for method in ("GET", "POST", "PUT"):
        assert local(chosen, f"{PATH}?token={token()}&arm=canary", method=method).status == 404


@pytest.mark.parametrize("query", ["", "?arm=", "?arm=purple", "?arm=%00", "?release=0", "?x=y"])
def test_a_post_that_asks_for_nothing_we_have_is_told_what_there_is(query: str) -> None:
    """400, constant text."""
    answer = local(splitter(**PUBLIC), PATH + query, method="POST")
    assert (answer.status, header(answer, "Set-Cookie")) == (400, "")


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([], False),
        (["Sec-Fetch-Site: same-origin", "Origin: http://shop.example"], False),
        (["Sec-Fetch-Site: none"], False),
        (["Sec-Fetch-Site: same-site"], True),
        (["Sec-Fetch-Site: cross-site"], True),
        (["Sec-Fetch-Site: "], True),
        (["Sec-Fetch-Site: same-origin", "Origin: https://evil.example"], True),
        (["Origin: http://shop.example"], False),
        (["Origin: https://shop.example"], False),
        (["Origin: HTTPS://SHOP.example"], False),
        (["Origin: http://shop.example:8080"], True),
        (["Origin: http://shop.example.evil"], True),
        (["Origin: https://evil.example"], True),
        (["Origin: null"], True),
        (["Origin: "], True),
        (["Origin: https://front.example", "X-Forwarded-Host: front.example"], True),
    ],
)
@pytest.mark.parametrize("query", ["arm=canary", "release=1", "token=" + token()], ids=["pin", "release", "token"])
def test_another_site_cannot_pin_or_release(lines: list[str], refused: bool, query: str) -> None:
    """Cross-site request forgery; Fetch Metadata where browsers send it, else Origin."""
    answer = local(splitter(**PUBLIC), f"{PATH}?{query}", *lines, method="POST")
    assert (answer.status, bool(header(answer, "Set-Cookie"))) == ((403, False) if refused else (303, True))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("shop.example:80", "http://shop.example"),
        ("shop.example:443", "https://shop.example"),
        ("shop.example:8080", "http://shop.example:8080"),
        ("[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_compared_without_its_default_port(host: str, origin: str) -> None:
    """RFC 6454 section 6.2."""
    answer = local(splitter(**PUBLIC), f"{PATH}?arm=canary", f"Origin: {origin}", method="POST", host=host)
    assert answer.status == 303


def test_a_trusted_peer_may_have_rewritten_the_host() -> None:
    """It says so in X-Forwarded-Host, which counts from trusted peers only."""
    lines = ["Origin: https://front.example", "X-Forwarded-Host: front.example"]
    answer = local(splitter(**PUBLIC), f"{PATH}?arm=canary", *lines, method="POST", trusted=True, host="inner:8080")
    assert answer.status == 303


# The page


def test_the_page_tells_what_the_browser_has_and_why() -> None:
    """surface.md: the preview page tells what this browser has."""
    chosen = splitter(**PUBLIC, arms=arms(10_000))
    page = Page(local(chosen).body)
    assert "canary (v2)" in page.text
    assert "share of users" in page.text
    assert "Pinned to" not in page.text
    pin = pin_of(local(chosen, f"{PATH}?arm=stable", method="POST"))
    pinned = Page(local(chosen, PATH, pin).body)
    assert "stable (v1)" in pinned.text
    assert "pinned by the preview" in pinned.text
    aborted = Page(local(chosen, PATH, pin, latched=True).body)
    assert "stable (v1)" in aborted.text
    assert "aborted" in aborted.text
    assert "Pinned to" in aborted.text


def test_the_page_tells_about_routes_by_name() -> None:
    """The root of the service stands for its pages."""
    every = [{"path": {"value": "/"}}]
    routed = splitter(**PUBLIC, routes=[{"name": "all", "matches": every, "arm": "canary"}])
    assert "a route of this service: all" in Page(local(routed).body).text
    split = splitter(**PUBLIC, routes=[{"name": "some", "matches": every, "split": {}}])
    assert "within the route some" in Page(local(split).body).text
    stepped = splitter(**PUBLIC, headerRoutes=[{"name": "qa", "matches": [{"name": "X-QA", "value": "1"}]}])
    assert "a header route of the rollout: qa" in Page(local(stepped, PATH, "X-QA: 1").body).text
    nobody = splitter(**PUBLIC, users=[{"cookie": {"name": "uid"}}])
    assert "cannot keep a cookie" in Page(local(nobody).body).text


def test_what_the_page_says_stays_true() -> None:
    """A first visit to the page mints the key that it speaks of."""
    decision = decide(splitter(**PUBLIC), PATH)
    assert (decision.key, len(decision.set_cookies)) == (MINTED, 1)


def test_the_forms_do_what_they_say() -> None:
    """Each action carries all that is needed: no body is read."""
    chosen = splitter(**PUBLIC, arms=arms(10, 10))
    pin = pin_of(local(chosen, f"{PATH}?arm=canary", method="POST"))
    page = Page(local(chosen, PATH, pin).body)
    assert page.posts == [f"{PATH}?arm=stable", f"{PATH}?arm=canary", f"{PATH}?arm=baseline", f"{PATH}?release=1"]
    lines = ["Origin: http://shop.example", "Sec-Fetch-Site: same-origin", "Content-Length: 0"]
    for action in page.posts:
        assert local(chosen, action, *lines, method="POST").status == 303


def test_with_tokens_the_page_takes_one_and_offers_no_arm() -> None:
    """A form by GET makes the link of it."""
    page = Page(local(splitter(**TOKEN)).body)
    assert page.posts == []
    assert "input" in page.tags
    pin = pin_of(local(splitter(**TOKEN), f"{PATH}?token={token()}"))
    assert Page(local(splitter(**TOKEN), PATH, pin).body).posts == [f"{PATH}?release=1"]


@pytest.mark.parametrize("target", [PATH, f"{PATH}?token=x", "/.cohort/x", f"{PATH}?token={token()}"])
def test_every_answer_is_self_contained_and_never_stored(target: str) -> None:
    """No script, a strict policy under which its own style still applies, no cache, no leak by Referer."""
    answer = local(splitter(**PUBLIC), target)
    page = Page(answer.body)
    policy = header(answer, "Content-Security-Policy")
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert f"style-src 'sha256-{b64encode(sha256(page.style.encode()).digest()).decode()}'" in policy
    assert {"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} <= set(
        policy.split("; ")
    )
    assert header(answer, "Cache-Control") == "no-store"
    assert header(answer, "Content-Type") == "text/html; charset=utf-8"
    assert header(answer, "X-Content-Type-Options") == "nosniff"
    assert header(answer, "Referrer-Policy") == "same-origin"


def test_nothing_of_the_request_is_in_the_page() -> None:
    """No reflection, escaped or not, but for the local page that a link leads to."""
    chosen = splitter(**PUBLIC)
    for target in (f"{PATH}?x=<script>&token=<script>", f"{PATH}?arm=<script>", "/.cohort/<script>"):
        for method in ("GET", "POST"):
            assert b"<script" not in local(chosen, target, "X-A: <script>", method=method).body
    led = local(chosen, f"{PATH}?token={token()}&to=/%22%3E%3Cscript%3E")
    assert b"<script" not in led.body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "get", "PROPFIND"])
def test_other_methods_are_not_allowed(method: str) -> None:
    """RFC 9110 section 15.5.6: 405 names those that are."""
    answer = local(splitter(**PUBLIC), f"{PATH}?arm=canary", method=method)
    assert (answer.status, header(answer, "Allow"), header(answer, "Set-Cookie")) == (405, "GET, HEAD, POST", "")


def test_head_is_answered_as_get() -> None:
    """RFC 9110 section 9.3.2; the shell leaves the body out."""
    chosen = splitter(**PUBLIC)
    assert local(chosen, method="HEAD") == local(chosen)


# The reserved path


@pytest.mark.parametrize(
    "target",
    [
        "/.cohort/", "/.cohort/x", "/.cohort/preview/", "/.cohort/previewx", "/%2ecohort/x", "//.cohort//x",
        "/.c%6Fhort/%", "/.cohort/a%2Fb", "/.cohort/x?token=1",
    ],
)  # fmt: skip
def test_all_below_the_reserved_path_is_ours(target: str) -> None:
    """surface.md: /.cohort/* is preview, nothing else; the normalised copy decides."""
    for fields in ({}, PUBLIC):
        assert local(splitter(**fields), target).status == 404


@pytest.mark.parametrize(
    "target", ["/.cohort", "/.cohortx", "/x/.cohort/preview", "/.Cohort/preview", "/?/.cohort/preview"]
)
def test_what_is_not_below_it_is_the_services(target: str) -> None:
    """The one place that cohort reserves, and no more."""
    assert decide(splitter(**PUBLIC), target).local is None


@pytest.mark.parametrize("target", ["/.cohort/preview", "/.cohort//preview", "//%2Ecohort/%70review?x"])
def test_the_page_is_found_in_any_spelling(target: str) -> None:
    """As routes see paths."""
    assert local(splitter(**PUBLIC), target).status == 200


def test_the_page_may_have_another_path() -> None:
    """preview.path, below /.cohort/."""
    chosen = splitter(preview={"access": "Public", "path": "/.cohort/pick%2d"})
    assert local(chosen, "/.cohort/pick-").status == 200
    assert header(local(chosen, "/.cohort/pick-?arm=canary", method="POST"), "Location") == "/.cohort/pick-"
    assert local(chosen).status == 404


def test_routes_do_not_reach_below_the_reserved_path() -> None:
    """An unconditional answer would else lock its own author out of the preview."""
    closed = {"name": "closed", "matches": [{"path": {"value": "/"}}], "answer": 403, "always": True}
    decision = decide(splitter(**PUBLIC, routes=[closed]), PATH)
    assert decision.local is not None
    assert (decision.local.status, decision.answer) == (200, 0)
