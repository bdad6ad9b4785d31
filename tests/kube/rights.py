"""Rights as they were used: the audit log beside what a Role grants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Right = tuple[str, str, str]  # API group, resource or resource/subresource, verb
Event = Mapping[str, Any]
FORBIDDEN = 403


def account(namespace: str, name: str) -> str:
    """A service account's user name, as the audit log has it."""
    return f"system:serviceaccount:{namespace}:{name}"


def used(events: Iterable[Event], user: str) -> set[Right]:
    """What a user has asked for and was not refused."""
    return {right for right, code in _asked(events, user) if code != FORBIDDEN}


def refused(events: Iterable[Event], user: str) -> set[Right]:
    """What a user has asked for and was answered 403: not granted, or refused by an admission policy."""
    return {right for right, code in _asked(events, user) if code == FORBIDDEN}


def _asked(events: Iterable[Event], user: str) -> Iterator[tuple[Right, int]]:
    for event in events:
        reference = event.get("objectRef")
        if event["user"].get("username") != user or not reference:
            continue
        parts = (reference.get("resource", ""), reference.get("subresource"))
        right = reference.get("apiGroup", ""), "/".join(part for part in parts if part), event["verb"]
        yield right, int((event.get("responseStatus") or {}).get("code", 0))


def granted(rules: Iterable[Mapping[str, Any]]) -> set[Right]:
    """Every right of a Role's rules, which name neither all groups nor all resources nor all verbs.

    Raises:
        AssertionError: A rule has a ``*``.
    """
    rights = {
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", ())
        for resource in rule.get("resources", ())
        for verb in rule["verbs"]
    }
    assert not any("*" in right for right in rights), rights
    return rights
