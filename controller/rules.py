"""What the API server is to check beyond types and bounds: the models' own checks once more, in CEL. Pure.

One table by model. A rule is given for every check that a model makes itself (its ``_check``) and for every format that
its validators know; tests hold the two against each other on a real API server. ``self`` is the model.

The API server reckons with the worst case that the bounds allow before it takes a rule, so rules are written to cost
little: no list is compared with itself unless it is short. Within lists the server writes no defaults, so a field that
has one may be absent there. Functions of Kubernetes 1.31.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller import condition, resource, spec, version
from proxy import plan
from proxy.document import Document


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what must hold, and what to say where it does not; ``path`` is the field to blame, from the model."""

    cel: str
    message: str
    path: str = ""


def _one_of(*names: str, present: Mapping[str, str] | None = None) -> Rule:
    """Exactly one of these fields is there."""
    terms = [(present or {}).get(name, f"has(self.{name})") for name in names]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return Rule(f"[{', '.join(terms)}].filter(x, x).size() == 1", f"exactly one of {listed} is needed")


def _unique(items: str, key: str, message: str, path: str = "") -> Rule:
    """No two items of a list have the same key; ``{}`` in the key is the item. Costs the square of the list."""
    return Rule(f"{items}.all(a, {items}.exists_one(b, {key.format('b')} == {key.format('a')}))", message, path)


_LABEL = (
    "(has({0}.header) ? 'header:' + {0}.header.name.lowerAscii() : has({0}.jwt) ? 'jwt:' + {0}.jwt.claim : "
    "has({0}.cookie) ? 'cookie:' + {0}.cookie.name : has({0}.clientAddress) ? 'clientAddress' : 'mint')"
)
_HOST = "{}.host.lowerAscii().replace('.', ' ').trim()"  # the trailing dot goes; blanks are in no name
_SET = "has(s.setHeaderRoute) && has(s.setHeaderRoute.match) && size(s.setHeaderRoute.match) > 0"
_OF_ITS_NAME = "has(t.setHeaderRoute) && t.setHeaderRoute.name == s.setHeaderRoute.name"
_REMOVES = "(!has(t.setHeaderRoute.match) || size(t.setHeaderRoute.match) == 0)"
_TEMPLATES = (_unique("self.templates", "{}.templateName", "a template is listed twice", "templates"),)
_REGEX = (
    "!has(self.value) || !has(self.type) || self.type != 'RegularExpression' || (''.matches(self.value) ? true : true)"
)
_PRESENT = Rule(
    "(has(self.type) && self.type == 'Present') != has(self.value)",
    "a match needs a value, and one of type Present has none",
)
_REGEX_RULE = Rule(_REGEX, "not a regular expression of RE2", "value")


def _limit(name: str) -> Rule:
    return Rule(
        f"!has(self.count) || !has(self.{name}) || self.{name} <= self.count",
        f"{name} is above count: so many are never measured",
        name,
    )


RULES: Mapping[type[Document], tuple[Rule, ...]] = {
    plan.PathMatch: (
        Rule(
            "(has(self.type) && self.type == 'RegularExpression') || self.value.matches('^/[ -\\\\x22$->@-~]*$')",
            "a path starts with / and has neither ? nor #",
            "value",
        ),
        _REGEX_RULE,
    ),
    plan.FieldMatch: (_PRESENT, _REGEX_RULE),
    plan.Match: (
        Rule(
            " || ".join(
                ["has(self.path)", "has(self.method)"]
                + [
                    f"(has(self.{name}) && size(self.{name}) > 0)"
                    for name in ("headers", "queryParams", "cookies", "hostnames", "clientNetworks")
                ]
            ),
            "a match needs a condition: path, headers, queryParams, cookies, method, hostnames or clientNetworks",
        ),
    ),
    plan.Split: (
        Rule(
            "!has(self.atLeast) || !has(self.atMost) || double(self.atLeast) <= double(self.atMost)",
            "atLeast is above atMost",
        ),
    ),
    plan.Route: (
        _one_of("arm", "split", "answer"),
        Rule("!has(self.answer) || !has(self.stripPrefix)", "stripPrefix has no meaning beside answer: remove one"),
        Rule(
            "!has(self.always) || !self.always || !has(self.split)",
            "always needs arm or answer: a share is never unconditional",
        ),
        Rule("!has(self.arm) || self.arm in ['stable', 'canary']", "expected one of stable, canary", "arm"),
    ),
    plan.UserSource: (_one_of("header", "jwt", "cookie", "clientAddress", "mint"),),
    plan.Preview: (
        Rule(
            "self.path.startsWith('/.cohort/')",
            "path must lie below /.cohort/, the one place that cohort reserves",
            "path",
        ),
    ),
    plan.Mirror: (Rule("self.arm == 'canary'", "expected canary, the only arm beside stable", "arm"),),
    plan.HealthCheck: (
        Rule(
            "duration(self.timeout) <= duration(self.interval)",
            "timeout is above interval: a check would begin before the last one has ended",
        ),
    ),
    version.Version: (
        _one_of(
            "addresses",
            "dns",
            "service",
            present={"addresses": "has(self.addresses) && size(self.addresses) > 0"},
        ),
        Rule(
            "has(self.service) || has(self.revision)", "is needed beside addresses and dns: no pods tell it", "revision"
        ),
        Rule(
            "!has(self.service) || !has(self.revision)",
            "is read from the pods of the service: remove it, or see revisionFrom",
            "revision",
        ),
    ),
    spec.Analysis: _TEMPLATES,
    spec.Background: _TEMPLATES,
    spec.HeaderValue: (
        _one_of("exact", "prefix", "regex"),
        Rule("!has(self.regex) || (''.matches(self.regex) ? true : true)", "not a regular expression of RE2", "regex"),
    ),
    spec.Step: (_one_of("setWeight", "pause", "analysis", "setHeaderRoute"),),
    spec.Canary: (
        Rule(
            f"self.steps.all(s, !has(s.setHeaderRoute) || ({_SET}) || "
            f"(self.steps.exists_one(t, {_OF_ITS_NAME} && {_REMOVES}) && "
            f"!self.steps.filter(t, {_OF_ITS_NAME}).map(t, {_REMOVES})[0]))",
            "a step removes a header route that no step before has set, or that another one removes",
            "steps",
        ),
        Rule(f"self.steps.filter(s, {_SET}).size() <= 16", "at most 16 steps may set a header route", "steps"),
        Rule(
            "!has(self.analysis) || self.analysis.startingStep < size(self.steps)",
            "startingStep is the index of a step, from 0",
            "analysis.startingStep",
        ),
    ),
    spec.RolloutSpec: (
        Rule(
            "!self.users.exists(u, has(u.mint)) || has(self.users[size(self.users) - 1].mint)",
            "mint must be the last source",
            "users",
        ),
        _unique("self.users", _LABEL, "a source is listed twice", "users"),
        Rule(
            "!has(self.routes) || self.routes.all(a, self.routes.exists_one(b, b.name == a.name))",
            "a name is used twice",
            "routes",
        ),
        Rule(
            "!has(self.workloadRef)",
            "cohort manages no workloads: run both versions, and name their Services as stable and canary",
            "workloadRef",
        ),
        Rule(
            "!has(self.revisionFrom) || has(self.stable.service) || (has(self.canary) && has(self.canary.service))",
            "has no meaning without a service: addresses and dns have revision beside them",
            "revisionFrom",
        ),
        Rule(
            "!has(self.canary) || !has(self.canary.service) || !has(self.stable.service) || "
            "self.canary.service.name != self.stable.service.name",
            "is stable's too: one Service cannot be two versions",
            "canary.service",
        ),
        Rule(
            "!has(self.canary) || !has(self.canary.dns) || !has(self.stable.dns) || "
            "self.canary.revision == self.stable.revision || self.canary.dns.port != self.stable.dns.port || "
            f"{_HOST.format('self.canary.dns')} != {_HOST.format('self.stable.dns')}",
            "is stable's too, yet of another revision",
            "canary.dns",
        ),
        Rule(
            "!has(self.canary) || !has(self.canary.addresses) || !has(self.stable.addresses) || "
            "self.canary.revision == self.stable.revision || "
            "!sets.intersects(self.canary.addresses, self.stable.addresses)",
            "an address is stable's too, yet of another revision",
            "canary.addresses",
        ),
    ),
    spec.Metric: (
        Rule(
            "has(self.successCondition) || has(self.failureCondition)",
            "successCondition or failureCondition is needed: without one any result is good",
        ),
        Rule(
            "has(self.interval) || !has(self.count) || self.count == 1",
            "is needed to measure more than once",
            "interval",
        ),
        _limit("failureLimit"),
        _limit("inconclusiveLimit"),
        _limit("consecutiveSuccessLimit"),
    ),
    spec.DryRun: (Rule("''.matches(self.metricName) ? true : true", "not a regular expression of RE2", "metricName"),),
    spec.TemplateSpec: (
        _unique("self.metrics", "{}.name", "a name is used twice", "metrics"),
        Rule(
            "!has(self.dryRun) || self.dryRun.all(d, self.metrics.exists(m, m.name.matches(d.metricName)))",
            "no metric has such a name",
            "dryRun",
        ),
    ),
    resource.ActionSpec: (
        Rule("self == oldSelf", "an action cannot be changed: make another one"),
        Rule(
            "(self.verb == 'SetWeight') == has(self.weight)",
            "is needed for SetWeight, and has no meaning for anything else",
            "weight",
        ),
        Rule("self.verb == 'Abort' || !has(self.reason)", "has a meaning for Abort only", "reason"),
    ),
    resource.RolloutStatus: (
        Rule(
            "!has(oldSelf.leader) || (has(self.leader) && (self.leader.term > oldSelf.leader.term || "
            "(self.leader.term == oldSelf.leader.term && self.leader.identity == oldSelf.leader.identity)))",
            "another controller has taken over: a new holder begins with a higher term",
            "leader",
        ),
        Rule(
            "!has(oldSelf.plan) || (has(self.plan) && self.plan.generation >= oldSelf.plan.generation)",
            "the generation of a plan never falls",
            "plan",
        ),
    ),
}


def _parentheses() -> str:
    """What is left of a condition when all but its parentheses is taken away, and then each pair, 32 levels deep."""
    others = [*"0123456789.-+eEresultresult[]<>=!&|"]
    strip = "".join(f".replace('{sign}', '')" for sign in dict.fromkeys(others))
    blanks = "".join(f".replace('\\{name}', '')" for name in "tnfr")
    return f"self{strip}.replace(' ', ''){blanks}" + ".replace('()', '')" * condition.MAX_DEPTH


_LAST = "self.substring(self.lastIndexOf(':') + 1)"
_FIRST = "self.substring(0, self.lastIndexOf(':')).replace('[', '').replace(']', '')"
_NAME = "([a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?\\\\.)*[a-zA-Z0-9_]([-a-zA-Z0-9_]{0,61}[a-zA-Z0-9_])?\\\\.?"
_IS_NAME = f"self.matches('^{_NAME}$') && !self.matches('(^|\\\\.)[0-9]+\\\\.?$')"
# What a format says beyond a pattern; `PATTERNS` are those that need no rule.
FORMATS: Mapping[str, tuple[Rule, ...]] = {
    "network": (
        Rule(
            "isIP(self) || (isCIDR(self) && cidr(self) == cidr(self).masked())",
            "expected a network such as 192.0.2.0/24",
        ),
    ),
    "ip-port": (
        Rule(
            f"self.matches('^(\\\\[[0-9a-fA-F:.]+\\\\]|[0-9.]+):[0-9]{{1,5}}$') && isIP({_FIRST}) && "
            f"ip.isCanonical({_FIRST}) && int({_LAST}) >= 1 && int({_LAST}) <= 65535",
            "expected an IP address with a port, such as 127.0.0.1:9001 or [::1]:9001",
        ),
    ),
    "hostname": (Rule(_IS_NAME, "expected a DNS name such as checkout.shop.svc.cluster.local"),),
    "server-name": (Rule(f"isIP(self) || ({_IS_NAME})", "expected a DNS name or an IP address"),),
    "condition": (Rule(f"{_parentheses()} == ''", "parentheses do not match, or are nested deeper than 32 levels"),),
}
PATTERNS: Mapping[str, str] = {"condition": condition.PATTERN}
