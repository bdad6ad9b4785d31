"""``cohort lint``: files and folders in, findings and an exit code out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.controller.cli.conftest import Run

HEAD = "apiVersion: cohort.dev/v1alpha1\n"
ROLLOUT = (
    HEAD
    + """kind: CanaryRollout
metadata: {name: checkout, namespace: shop}
spec:
  stable: {addresses: ["127.0.0.1:9001"], revision: v1}
  routes: [{name: staff, arm: canary, matches: [{headers: [{name: X-Staff, value: "yes"}]}]}]
  strategy: {canary: {steps: [{analysis: {templates: [{templateName: success-rate}]}}]}}
"""
)
TEMPLATE = (
    HEAD
    + """kind: AnalysisTemplate
metadata: {name: success-rate}
spec:
  metrics:
    - {name: success-rate, successCondition: "result[0] >= 0.99", provider: {cohort: {metric: successRate}}}
"""
)
PROXY = "kind: ProxySettings\ntrustedPeers: [192.0.2.0/24]\n"
CONTROLLER = 'kind: ControllerSettings\nproxies: [{address: "unix:admin.sock"}]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a rollout, its template, both settings, and what is none of ours."""
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "rollout.yaml").write_text(ROLLOUT)
    (tmp_path / "deep" / "template.yml").write_text(TEMPLATE)
    (tmp_path / "proxy.json").write_text(json.dumps(yaml.safe_load(PROXY)))
    (tmp_path / "controller.yaml").write_text(CONTROLLER)
    (tmp_path / "deployment.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\n")
    (tmp_path / ".hidden" / "x.yaml").write_text("broken: [")
    (tmp_path / "README.md").write_text("# no document")
    return tmp_path


def test_a_sound_folder_is_exit_0(run: Run, folder: Path) -> None:
    """Every kind, at any depth; other groups and other files are passed over."""
    result = run("lint", str(folder))
    assert (result.code, result.out, result.err) == (0, "", "4 documents: 0 faults, 0 warnings\n")


def test_every_fault_of_every_file_is_told_with_its_path(run: Run, folder: Path) -> None:
    """surface.md: each error says what was expected and what came; exit 1."""
    (folder / "rollout.yaml").write_text(ROLLOUT.replace("arm: canary", "arm: blue").replace("v1}", "v1, x: 1}"))
    (folder / "proxy.json").write_text("{kind: ProxySettings, workers: 0}")
    result = run("lint", str(folder))
    assert result.code == 1
    assert f"{folder}/proxy.json: fault: workers: " in result.out
    assert f"{folder}/rollout.yaml: fault: spec.stable.x: unknown field" in result.out
    assert result.out.splitlines() == sorted(result.out.splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with apiVersion and kind, got NoneType"),
        ("- 1", "expected a mapping with apiVersion and kind, got list"),
        ("a: [", "not valid YAML at line"),
        ("a: 1\n---\nb: 1", "but found another document"),
        (HEAD + "kind: CanaryRolout\n", "kind: expected one of CanaryRollout, AnalysisTemplate, Plan"),
        (HEAD + "kind: [1]\n", "kind: expected one of"),
        ("metadata: {}\n", "kind: expected one of"),
        ("apiVersion: apps/v1\nkind: Deployment\n", "kind: expected one of"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: AnalysisTemplate\n", "apiVersion: "),
        ("a: &x 1\nb: *x\n", "YAML alias"),
        ("\x00", "not valid YAML"),
        ("x" * 1_048_577, "at most 1048576 are read"),
    ],
)
def test_a_file_that_is_no_document_is_a_fault(run: Run, tmp_path: Path, text: str, message: str) -> None:
    """A file that is named is meant."""
    (tmp_path / "x.yaml").write_text(text)
    result = run("lint", str(tmp_path / "x.yaml"))
    assert result.code == 1
    assert message in result.out


def test_several_files_are_checked_against_each_other(run: Run, folder: Path) -> None:
    """The template and the trusted peers come from other files."""
    files = [str(folder / name) for name in ("rollout.yaml", "deep/template.yml", "proxy.json")]
    assert run("lint", *files).out == ""
    assert "warning: spec.routes[0].matches[0].headers: X-Staff counts from" in run("lint", *files[:2]).out


def test_warnings_alone_are_exit_0_unless_strict(run: Run, folder: Path) -> None:
    """Exit 1 on faults, 0 on warnings only."""
    alone = str(folder / "rollout.yaml")
    result = run("lint", alone)
    assert result.code == 0
    assert result.err == "1 document: 0 faults, 2 warnings\n"
    assert run("lint", "--strict", alone).code == 1
    assert run("lint", "--strict", str(folder)).code == 0


def test_a_folder_is_all_that_there_is(run: Run, folder: Path) -> None:
    """A template that is missing in the controller's own folder will be missing there."""
    (folder / "deep" / "template.yml").unlink()
    assert run("lint", str(folder / "rollout.yaml")).code == 0
    assert run("lint", str(folder)).code == 1


def test_a_file_given_twice_is_one_document(run: Run, folder: Path) -> None:
    """`lint rollouts/ rollouts/checkout.yaml` is no repeated name."""
    (folder / "link.yaml").symlink_to(folder / "rollout.yaml")
    result = run("lint", str(folder), str(folder / "rollout.yaml"))
    assert (result.code, result.err) == (0, "4 documents: 0 faults, 0 warnings\n")


def test_findings_as_json(run: Run, folder: Path) -> None:
    """`-o json`, for programs: an empty list is an answer too."""
    assert json.loads(run("lint", "-o", "json", str(folder)).out) == {
        "documents": 4,
        "faults": 0,
        "warnings": 0,
        "findings": [],
    }
    (folder / "proxy.json").write_text("{kind: ProxySettings, workers: 0}")
    result = run("lint", "-o", "json", str(folder))
    assert result.code == 1
    answer = json.loads(result.out)
    assert (answer["faults"], answer["warnings"]) == (1, 1)
    assert {item["file"]: (item["severity"], item["path"]) for item in answer["findings"]} == {
        str(folder / "proxy.json"): ("fault", "workers"),
        str(folder / "rollout.yaml"): ("warning", "spec.routes[0].matches[0].headers"),
    }


def test_standard_input_is_a_file_named_dash(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`helm template ... | cohort lint -`."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"kind: Nothing")))
    assert run("lint", "-").out.startswith("-: fault: kind: expected one of")


@pytest.mark.parametrize("paths", [[], ["/nonexistent/x.yaml"], ["/dev/mem/x"]])
def test_a_file_that_cannot_be_read_is_wrong_use(run: Run, paths: list[str]) -> None:
    """surface.md: exit 2."""
    assert run("lint", *paths).code == 2
