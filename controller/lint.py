"""What can be said of documents beyond each one's own validity: references between them, and choices to think over.

Pure: documents in, findings out. A *fault* is a document that cannot work as given; a *warning* is one that works, yet
seldom as its author means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from controller.spec import AnalysisTemplate, CanaryRollout, cross_faults
from proxy.document import Document, Fault
from proxy.plan import Match, Mirror, Plan, Route

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")  # RFC 9110 section 9.2.1
FAULT: Literal["fault"] = "fault"
WARNING: Literal["warning"] = "warning"


@dataclass(frozen=True, slots=True)
class Given:
    """One valid document, and the file that it came from."""

    file: str
    document: Document


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell the author: where, how grave, and what to do."""

    file: str
    severity: Literal["fault", "warning"]
    path: str
    message: str


def findings(given: Sequence[Given], whole: bool, trusted: bool | None) -> list[Finding]:
    """Check documents against each other.

    Args:
        given: Valid documents of any kind; those that have nothing to do with another are passed over.
        whole: Whether these are all that the controller will read. If so, or if any template is among them, one that
            is missing is a fault, else a warning.
        trusted: Whether the proxies' settings name trusted peers; None: no settings are given.

    Returns:
        Findings in the order of the documents.
    """
    templates = [item.document for item in given if isinstance(item.document, AnalysisTemplate)]
    cross_severity = FAULT if whole or templates else WARNING
    found = []
    for item in given:
        found += [Finding(item.file, FAULT, fault.path, fault.message) for fault in _repeated(item, given)]
        if isinstance(item.document, CanaryRollout):
            cross = cross_faults(item.document, templates)
            found += [Finding(item.file, cross_severity, fault.path, fault.message) for fault in cross]
        found += [Finding(item.file, WARNING, fault.path, fault.message) for fault in _risky(item.document, trusted)]
    return found


def _repeated(item: Given, given: Sequence[Given]) -> Iterator[Fault]:
    """Two documents of one name: which of them counts would depend on the order of the files."""
    identity = _identity(item.document)
    first = next((other for other in given if _identity(other.document) == identity), item)
    if identity and first is not item:
        kind, namespace, name = identity
        label = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        yield Fault("metadata.name", f"{label} is already in {first.file}: rename or remove one")


def _identity(document: Document) -> tuple[str, str | None, str] | None:
    if isinstance(document, CanaryRollout | AnalysisTemplate):
        return document.kind, document.metadata.namespace, document.metadata.name
    return None


def _risky(document: Document, trusted: bool | None) -> Iterator[Fault]:
    if isinstance(document, CanaryRollout):
        users, routes, mirror, base = document.spec.users, document.spec.routes, document.spec.mirror, "spec."
        breaker = document.spec.breaker
    elif isinstance(document, Plan):
        users, routes, mirror, base = document.users, document.routes, document.mirror, ""
        breaker = document.breaker
    else:
        return
    yield from _repeated_deeds(f"{base}mirror.methods", mirror)
    if breaker and breaker.minimum_users == 1:
        yield Fault(
            f"{base}breaker.minimumUsers",
            "one user alone can end a rollout: whoever knows a request that fails sends it until the breaker trips",
        )
    if trusted is False:
        for i, user in enumerate(users):
            if user.header and user.header.trust == "TrustedPeers":
                yield Fault(f"{base}users[{i}].header", _nobody(user.header.name, trusted))
    for i, route in enumerate(routes):
        path = f"{base}routes[{i}]"
        yield from _unsettable(path, route, trusted)
        yield from _two_versions(path, route)


def _repeated_deeds(path: str, mirror: Mirror | None) -> Iterator[Fault]:
    """A copy of a request that changes something changes it twice."""
    unsafe = [method for method in (mirror.methods if mirror else ()) if method not in _SAFE]
    if unsafe:
        yield Fault(
            path,
            f"a copy of {', '.join(unsafe)} does what it asks for once more: leave it out, "
            "or give the canary a store of its own",
        )


def _unsettable(path: str, route: Route, trusted: bool | None) -> Iterator[Fault]:
    """A header that counts from trusted peers only, where there are none."""
    if trusted or route.trust != "TrustedPeers":
        return
    for i, match in enumerate(route.matches):
        if match.headers:
            names = ", ".join(header.name for header in match.headers)
            yield Fault(f"{path}.matches[{i}].headers", _nobody(names, trusted))


def _nobody(names: str, trusted: bool | None) -> str:
    none = (
        "the proxy's settings name none" if trusted is False else "without trustedPeers in ProxySettings there is none"
    )
    return f"{names} counts from trusted peers only, and {none}: name them there, or say trust: Anyone"


def _two_versions(path: str, route: Route) -> Iterator[Fault]:
    """A choice of version that depends on what is asked for, not on who asks: one user meets two versions."""
    if route.answer is not None or (route.split and (route.split.at_least, route.split.at_most) == (0, 10_000)):
        return
    kinds = [word for word, depends in _ON_THE_REQUEST.items() if any(depends(match) for match in route.matches)]
    if kinds:
        choice = route.arm or "a share of its own"
        yield Fault(
            path,
            f"{route.name} gives {choice} by {' and '.join(kinds)}, so that one user may meet two versions: "
            "choose by who asks (headers, cookies, hostnames, clientNetworks), or make sure that they go together",
        )


def _by_path(match: Match) -> bool:
    everything = match.path and match.path.type == "PathPrefix" and match.path.value == "/"
    return match.path is not None and not everything


_ON_THE_REQUEST: dict[str, Callable[[Match], bool]] = {
    "path": _by_path,
    "method": lambda match: match.method is not None,
    "query": lambda match: bool(match.query_params),
}
