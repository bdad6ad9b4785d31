"""``cohort preview``."""

from __future__ import annotations

import json

import pytest

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController


def test_prints_a_link_below_the_service_s_address(controller: FakeController, run: Run) -> None:
    """surface.md: `cohort preview --ttl 168h` prints one."""
    result = run("preview", "checkout", "--ttl", "24h", "--url", "https://shop.example/")
    assert (result.code, result.out, result.err) == (0, "https://shop.example/.cohort/preview?token=t0k\n", "")
    assert controller.posted == [{"arm": "canary", "ttl": "86400s"}]


def test_without_an_address_it_prints_the_path_and_says_so(controller: FakeController, run: Run) -> None:
    """The controller does not know under which name people reach the service."""
    result = run("preview", "--arm", "stable")
    assert result.out == "/.cohort/preview?token=t0k\n"
    assert result.err == "Put the service's address before it, or give --url.\n"
    assert controller.posted == [{"arm": "stable", "ttl": "604800s"}]


def test_json_has_the_whole_link_too(run: Run) -> None:
    """`-o json`."""
    answer = json.loads(run("preview", "--url", "http://localhost:8080", "-o", "json").out)
    assert answer["url"] == "http://localhost:8080/.cohort/preview?token=t0k"
    assert answer["token"] == "t0k"


@pytest.mark.parametrize("url", ["shop.example", "https://shop.example/app", "ftp://shop.example", "http://[::1", ""])
def test_an_address_that_is_none_is_refused(controller: FakeController, run: Run, url: str) -> None:
    """surface.md: exit 2 wrong use."""
    result = run("preview", "--url", url)
    assert result.code == 2
    assert "expected an address such as https://shop.example" in result.err
    assert controller.asked == []
