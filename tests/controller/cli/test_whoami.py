"""``cohort whoami``."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController


def test_tells_the_version_and_why(controller: FakeController, run: Run) -> None:
    """surface.md: `cohort whoami --key SOURCE=VALUE` computes it; a value may hold anything."""
    result = run("whoami", "checkout", "--key", "header:x-user-id=anna & co=ü")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Version: canary, revision v2\n"
        "Reason:  split\n"
        "Bucket:  412 of 10000; the canary has 5.00 %\n"
        "Key:     5d41402abc4b2a76b9719d911017c592\n"
        "Plan:    generation 42\n"
    )
    url = urlsplit(controller.asked[-1][1])
    assert url.path == "/api/v1/rollouts/shop/checkout/whoami"
    assert parse_qs(url.query) == {"key": ["header:x-user-id=anna & co=ü"]}


def test_json_is_the_answer_itself(run: Run) -> None:
    """`-o json`."""
    assert json.loads(run("whoami", "--key", "cookie:uid=1", "-o", "json").out)["bucket"] == 412


@pytest.mark.parametrize("key", ["anna", "=anna", "cookie:uid="])
def test_a_key_that_is_none_is_refused(controller: FakeController, run: Run, key: str) -> None:
    """surface.md: exit 2 wrong use; the error shows what is expected."""
    result = run("whoami", "--key", key)
    assert result.code == 2
    assert "expected SOURCE=VALUE such as header:x-user-id=anna" in result.err
    assert controller.asked == []
