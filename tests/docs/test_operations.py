"""docs/operations.md and docs/errors.md against the sources and against what runs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from controller.cli.exits import NOT_REACHABLE, REFUSED, TIMED_OUT, WRONG_USE
from proxy.config import Endpoints, Limits, ResolverSettings, Timeouts
from proxy.document import Document
from proxy.errors import DownstreamError
from proxy.forward import reason_phrase
from proxy.http1 import HeadLimits, parse_request
from proxy.net.accesslog import AccessLog
from tests.support.dataplane import REPLY, Proxy, plan, replies, service

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()
FAMILY = "resolver.family"  # no limit, and nothing to turn when something is wrong


@pytest.mark.parametrize(
    ("section", "model"),
    [("limits", Limits), ("timeouts", Timeouts), ("endpoints", Endpoints), ("resolver", ResolverSettings)],
)
def test_every_limit_has_its_advice(section: str, model: type[Document]) -> None:
    """A limit that nobody knows when to turn is a trap."""
    named = {f"{section}.{field.alias}" for field in model.model_fields.values()} - {FAMILY, "resolver.servers"}
    advice = OPERATIONS.partition("## Limits and time-outs")[2].partition("\n## ")[0]
    assert {
        name for name in named if f"`{name}`" not in advice and f"`{name.partition('.')[2]}`" not in advice
    } == set()


def test_every_setting_named_exists() -> None:
    """Advice to turn what is not there."""
    sections = {"limits": Limits, "timeouts": Timeouts, "endpoints": Endpoints, "resolver": ResolverSettings}
    for page in (OPERATIONS, ERRORS):
        for section, name in re.findall(r"`(limits|timeouts|endpoints|resolver)\.(\w+)`", page):
            assert name in {field.alias for field in sections[section].model_fields.values()}, f"{section}.{name}"


async def test_every_field_of_the_access_log_is_told(tmp_path: Path) -> None:
    """Of a served request, and of bytes that were none."""
    path = tmp_path / "log"
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        with path.open("wb") as file:
            proxy.server._log = log = AccessLog(file.fileno(), int)
            proxy.adopt(plan([port], []))
            await proxy.ask(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            await proxy.ask(b"nonsense\r\n\r\n")
            log.close()
    fields = {name for line in path.read_text().splitlines() for name in json.loads(line)}
    told = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", OPERATIONS.partition("## The access log")[2], re.M)))
    )
    assert {"refused", "arm"} <= fields
    assert fields - told == set()


def _statuses() -> set[int]:
    """Every status with which a source makes an error of its own, and those that have a phrase of our own."""
    found = {status for status in range(600) if reason_phrase(status)}
    for path in (ROOT / "proxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "DownstreamError":
                found |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and arg.value}
    return found


def test_every_status_of_ours_is_told() -> None:
    assert _statuses() - {int(status) for status in re.findall(r"^\| (\d{3}) \|", ERRORS, re.M)} == set()


def _messages(package: str) -> set[str]:
    """Formats of a package's warnings and errors."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("warning", "error", "exception", "critical")
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                found.add(ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "")
    return found


@pytest.mark.parametrize(("package", "where"), [("proxy", "worker|supervisor"), ("controller", "controller")])
def test_every_warning_is_told(package: str, where: str) -> None:
    """With what it means and what to do; and none that nobody says."""
    told = set(re.findall(rf"^\| `([^`]+)` \| (?:{where}) ", ERRORS, re.M))
    assert told == _messages(package)


def test_every_exit_status_is_told() -> None:
    """surface.md, Commands: 0 done or healthy, and one for each way to fail."""
    told = set(re.findall(r"^\| (\d) \|", ERRORS.partition("## How commands end")[2], re.M))
    assert told == {str(status) for status in (0, REFUSED, WRONG_USE, NOT_REACHABLE, TIMED_OUT)}


def test_a_refusal_says_what_was_expected_and_what_came() -> None:
    """errors.md: the access log's `refused`."""
    with pytest.raises(DownstreamError, match=r"expected one host\[:port\], got"):
        parse_request(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadLimits(1000, 10, 100))
