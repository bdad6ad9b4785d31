"""The examples for a cluster do what they say: each one's routes, asked about requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.spec import AnalysisTemplate, CanaryRollout, cross_faults, parse_document
from tests.support.plans import arms, decide, splitter

FOLDER = Path(__file__).parents[2] / "examples/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))


def read(name: str) -> CanaryRollout:
    document = parse_document((FOLDER / f"{name}.yaml").read_bytes())
    assert isinstance(document, CanaryRollout)
    return document


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_good(path: Path) -> None:
    """What the repository shows works as it stands."""
    document = parse_document(path.read_bytes())
    templates = [parse_document((FOLDER / "success-rate.yaml").read_bytes())]
    if isinstance(document, CanaryRollout):
        assert cross_faults(document, [one for one in templates if isinstance(one, AnalysisTemplate)]) == []
        assert f"]({path.name})" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "lines", "how", "arm", "reason"),
    [
        ("internal-users", (), {}, 0, "split"),
        ("internal-users", (), {"client": "198.51.100.7"}, 1, "route/internal"),
        ("internal-users", (), {"client": "2001:db8:1::9"}, 1, "route/internal"),
        ("internal-users", ("X-Staff: yes",), {"trusted": True}, 1, "route/internal"),
        ("internal-users", ("X-Staff: yes",), {}, 0, "split"),
        ("france-first", ("Cookie: country=DE",), {}, 0, "split"),
        ("france-first", ("Cookie: country=FR",), {}, None, "split/france"),
        ("asia-on-stable", ("X-Region: asia-2",), {"trusted": True}, 0, "route/asia"),
        ("asia-on-stable", (), {"host": "www.jp.shop.example"}, 0, "route/asia"),
        ("asia-on-stable", ("X-Region: asia-2",), {}, None, "split"),
        ("payments-never", (), {"target": "/payments/callback/7"}, 0, "route/payment-gateway"),
        ("payments-never", (), {"client": "203.0.113.9"}, 0, "route/payment-gateway"),
        ("payments-never", (), {"target": "/payments"}, None, "split"),
        ("preview-checkbox", ("Cookie: show_new=1",), {}, 1, "route/checkbox"),
        ("preview-checkbox", ("X-Canary: yes",), {}, 1, "route/page-toggle"),
        ("preview-checkbox", (), {}, None, "split"),
    ],
)
def test_groups_by_risk(name: str, lines: tuple[str, ...], how: dict[str, Any], arm: int | None, reason: str) -> None:
    """A6: only internal users, only French users, Asia on stable, the payment gateway never, the checkbox always."""
    rollout = read(name)
    weights = [step.set_weight for step in rollout.spec.strategy.canary.steps if step.set_weight is not None]
    routes = [route.model_dump(by_alias=True, exclude_unset=True, mode="json") for route in rollout.spec.routes]
    how = dict(how)
    found = decide(splitter(routes=routes, arms=arms(weights[0])), how.pop("target", "/"), *lines, **how)
    assert found.reason == reason
    assert arm in (None, found.arm)


def test_half_of_the_french_are_half() -> None:
    """france-first: its group has a share of its own while all others have none."""
    rollout = read("france-first")
    routes = [route.model_dump(by_alias=True, exclude_unset=True, mode="json") for route in rollout.spec.routes]
    users = [{"cookie": {"name": "uid"}}, {"mint": {}}]
    chosen = splitter(routes=routes, arms=arms(0), users=users)
    shares = {
        country: sum(decide(chosen, "/", f"Cookie: uid={n}; country={country}").arm == 1 for n in range(2000)) / 2000
        for country in ("FR", "DE")
    }
    assert shares["DE"] == 0
    assert 0.45 < shares["FR"] < 0.55
