"""Bodies of the API: what may be asked."""

from __future__ import annotations

from typing import Any

import pytest

from controller.events import Verb
from controller.messages import ActionRequest, PreviewRequest
from proxy.document import DocumentError, validate


@pytest.mark.parametrize("verb", [v for v in Verb if v not in (Verb.START, Verb.SET_WEIGHT)])
def test_a_verb_needs_only_who_asks(verb: Verb) -> None:
    """Two fields are enough for a script."""
    assert validate(ActionRequest, {"verb": verb.value, "by": "anna"}).verb is verb


@pytest.mark.parametrize(("weight", "bp"), [(0, 0), (100, 10_000), ("0.25", 25), ("12.5", 1250), ("100.00", 10_000)])
def test_a_weight_is_in_per_cent(weight: Any, bp: int) -> None:
    """As in documents: integers, or strings with at most two decimals."""
    assert validate(ActionRequest, {"verb": "SetWeight", "by": "anna", "weight": weight}).weight == bp


@pytest.mark.parametrize("by", ["anna\nAborted: v2", "\x1b[2Janna", "anna\x00", "anna\x7f"])
def test_a_name_is_printable(by: str) -> None:
    """It goes into logs and terminals, where it must not write lines or colours of its own."""
    with pytest.raises(DocumentError, match="by"):
        validate(ActionRequest, {"verb": "Abort", "by": by})
    with pytest.raises(DocumentError, match="reason"):
        validate(ActionRequest, {"verb": "Abort", "by": "anna", "reason": by})


def test_a_name_may_be_anybodys() -> None:
    """Names are not ASCII."""
    assert validate(ActionRequest, {"verb": "Abort", "by": "Åsa Öberg 王"}).by == "Åsa Öberg 王"


def test_a_link_lasts_a_week_unless_it_is_said() -> None:
    """As long as a pin."""
    assert validate(PreviewRequest, {"arm": "canary"}).ttl == 7 * 86_400
