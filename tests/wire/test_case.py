"""Files of cases are read whole or refused with every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wire.case import Await, CaseFile, CaseFileError, Do, Drip, Echo, Pause, Range, Write, load

CASES = Path(__file__).with_name("cases.yaml")
EXPECT = "expect: [{status: [200]}]"


def read(tmp_path: Path, case: str, more: str = "") -> CaseFile:
    path = tmp_path / "cases.yaml"
    path.write_text(f"schema: 1\n{more}\ncases:\n- {{{case}}}\n")
    return load(path)


def test_own_file_is_read() -> None:
    """All 226 cases, one of them once for each of twelve values."""
    file = load(CASES)
    assert len({case.id for case in file.cases}) == 226
    assert sum(case.id == "AD-07" for case in file.cases) == 12
    assert file.limits["header_block_bytes"] == 32_768


@pytest.mark.parametrize(("name", "count"), [("more.yaml", 300), ("variants.yaml", 300)])
def test_further_cases_are_read(name: str, count: int) -> None:
    """Ours beside those that were given, with the same limits and no id twice."""
    given, more = load(CASES), load(CASES.with_name(name))
    assert more.limits == given.limits
    assert len({case.id for case in more.cases}) >= count
    assert not {case.id for case in more.cases} & {case.id for case in given.cases}


def test_steps_are_those_of_the_head_of_the_file(tmp_path: Path) -> None:
    """Each form once; split belongs to the string behind it."""
    steps = r"""["a\xff", {pause_ms: 5}, {wait: response}, {wait: 100}, {rep: "x", n: 3}, {split: 2}, "abc",
                 {drip: "y", every_ms: 7}, {drip: "y", every_ms: 7, n: 2}, {do: rst}, {echo: raw}]"""
    case = read(tmp_path, f"id: A, class: a, sev: must, send: {steps}, {EXPECT}").cases[0]
    assert case.send == (
        Write("a\xff"), Pause(5), Await(0), Await(100), Write("x", 3), Write("abc", 1, 2), Drip("y", 7, 0),
        Drip("y", 7, 2), Do("rst"), Echo(),
    )  # fmt: skip
    assert [step.data for step in case.send if isinstance(step, Write)] == [b"a\xff", b"xxx", b"abc"]


def test_ranges(tmp_path: Path) -> None:
    """A number, a list of numbers, or min and max."""
    expect = (
        "expect: [{status: [200], upstream_sees: 1, responses: {min: 1, max: 3}}, {status: [0], upstream_sees: [0, 2]}]"
    )
    one, other = read(tmp_path, f"id: A, class: a, sev: must, send: [], {expect}").cases[0].expect
    assert one.upstream_sees == Range(1, 1)
    assert one.responses is not None
    assert [value in one.responses for value in (0, 1, 3, 4)] == [False, True, True, False]
    assert other.upstream_sees is not None
    assert [value in other.upstream_sees for value in (0, 1, 2)] == [True, False, True]


def test_variables_make_a_case_each(tmp_path: Path) -> None:
    """Every combination, with one label each."""
    cases = read(tmp_path, f"id: A, class: a, sev: must, send: [], vars: {{x: [a, b], y: [c, d]}}, {EXPECT}").cases
    assert [(case.label, case.values) for case in cases][1] == ("A[1]", {"x": "a", "y": "d"})
    assert len(cases) == 4


@pytest.mark.parametrize(
    "case",
    [
        "id: A, class: a, sev: must, send: [], expect: []",
        f"id: A, class: a, sev: maybe, send: [], {EXPECT}",
        f"id: A, class: a, sev: must, {EXPECT}",
        f"id: A, class: a, sev: must, send: [], sned: [], {EXPECT}",
        f"id: A, class: a, sev: must, send: [], profile: other, {EXPECT}",
        f"id: A, class: a, sev: must, send: [{{pause: 1}}], {EXPECT}",
        f"id: A, class: a, sev: must, send: [{{do: jump}}], {EXPECT}",
        f"id: A, class: a, sev: must, send: [{{split: 2}}], {EXPECT}",
        f'id: A, class: a, sev: must, send: ["\\u0100"], {EXPECT}',
        f"id: A, class: a, sev: must, send: [], up_a: dead, {EXPECT}",
        f"id: A, class: a, sev: must, send: [], repeat: 0, {EXPECT}",
        "id: A, class: a, sev: must, send: [], expect: [{status: [200], conection: close}]",
        "id: A, class: a, sev: must, send: [], expect: [{status: [200], connection: shut}]",
        "id: A, class: a, sev: must, send: [], expect: [{status: 200}]",
    ],
)
def test_fault_is_told(tmp_path: Path, case: str) -> None:
    """Nothing is guessed: a case that is not understood would pass for the wrong reason."""
    with pytest.raises(CaseFileError, match="A"):
        read(tmp_path, case)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """One line each."""
    with pytest.raises(CaseFileError) as caught:
        read(tmp_path, "id: A, class: a, sev: no, send: [1], expect: [{}]", "limits: {sizes: 1}")
    assert len(str(caught.value).splitlines()) == 4
