"""Conditions: what is read, what it means, and that nothing is silently true."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.condition import MAX_DEPTH, PATTERN, ConditionError, holds, parse

NUMBERS = st.floats(-1e99, 1e99).filter(lambda number: number == 0 or abs(number) > 1e-99)


@pytest.mark.parametrize(
    ("text", "result", "expected"),
    [
        ("result[0] >= 0.99", 0.99, True),
        ("result[0] >= 0.99", 0.9899, False),
        ("result >= 0.99", 1.0, True),
        ("result[ 0 ] < 1e-3", 0.0, True),
        ("result==-1.5", -1.5, True),
        ("result != 0", 0.0, False),
        ("0.95 <= result[0]", 0.96, True),
        ("0.95 > result[0]", 0.96, False),
        (".5 < result", 0.6, True),
        ("result > 1 || result < 0 && result > -1", 2.0, True),
        ("(result > 1 || result < 0) && result > -1", -2.0, False),
        ("!(result > 1)", 1.0, True),
        ("!!(result > 1)", 1.0, False),
        ("!result > 1", 2.0, False),
        ("!" * 41 + "(result > 1)", 1.0, True),
        ("(" * 32 + "result > 1" + ")" * 32, 2.0, True),
        ("result >= 1\n  && result <= 2", 1.5, True),
        ("result <= 1", math.inf, False),
    ],
)
def test_a_condition_means_what_it_says(text: str, result: float, expected: bool) -> None:
    """Comparisons with && before ||, as Argo's expression language; D1."""
    assert holds(parse(text), result) is expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected result, result[0] or a number at character 1, got 'the end'"),
        ("result", "expected one of >= <= == != > < at character 7"),
        ("result[1] > 0", "character 1"),
        ("result[0][0] > 0", "character 1"),
        ("results > 0", "character 1"),
        ("result.x > 0", "character 1"),
        ("result > 1 > 2", "expected && or ||"),
        ("result > 1 and result < 2", "expected a comparison of result or result[0] with a number at character 12"),
        ("1 > 0", "needs the result on one side"),
        ("result == result[0]", "needs the result on one side"),
        ("(result > 1", "expected )"),
        ("result > 1)", "expected && or ||"),
        ("result => 1", "expected"),
        ("result > 1 &&", "got 'the end'"),
        ("result > 0x10", "character 10"),
        ("result > 1_0", "character 10"),
        ("result > 1e999", "too large"),
        ("result > NaN", "character 10"),
        ("result > \u0661", "character 10"),
        ("true", "character 1"),
        ("result > 0; import os", "character 11"),
        ("(" * 40 + "result > 1" + ")" * 40, f"deeper than {MAX_DEPTH}"),
        ("(" * 33 + "result > 1" + ")" * 33, f"deeper than {MAX_DEPTH}"),
        ("result > 1e-100", "too small"),
        ("result > " + "1" * 31, "too long"),
        ("result > 1" + " " * 1024, "at most 1024 characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, part: str) -> None:
    """An error says what was expected and where; a comparison without the result would be true of anything."""
    with pytest.raises(ConditionError) as raised:
        parse(text)
    assert part in str(raised.value)


@pytest.mark.parametrize(
    "text", ["result", "1 > 0", "result > 1 > 2", "result > 1 &&", "result > 0x10", "result > 1e999"]
)
def test_the_pattern_refuses_what_the_parser_does(text: str) -> None:
    """It is what an API server checks; only parentheses that do not match are beyond it."""
    assert not re.search(PATTERN, text)


@pytest.mark.parametrize("text", ["result >= 0.99", "!(result < 0.99)", "result != 5"])
def test_not_a_number_is_neither_true_nor_false(text: str) -> None:
    """C9: on NaN Argo's comparison is a failure and its negation a success; here it is no measurement at all."""
    with pytest.raises(ConditionError, match="NaN"):
        holds(parse(text), math.nan)


@given(st.floats(allow_nan=False), NUMBERS)
def test_a_mirrored_comparison_says_the_same(result: float, number: float) -> None:
    """``a < b`` is ``b > a`` for every pair."""
    for sign, mirror in ((">", "<"), (">=", "<="), ("==", "=="), ("!=", "!=")):
        left = holds(parse(f"result {sign} {number!r}"), result)
        assert left == holds(parse(f"{number!r} {mirror} result[0]"), result)
        assert left != holds(parse(f"!(result {sign} {number!r})"), result)


@given(st.text(alphabet="result[0] <>=!&|().-19e", max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """The parser raises nothing but its own error; what it takes, the pattern for API servers takes too."""
    try:
        tree = parse(text)
    except ConditionError:
        return
    assert re.search(PATTERN, text)
    assert holds(tree, 0.5) in (True, False)
