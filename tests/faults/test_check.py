"""A run passes only by figures within their bounds."""

from __future__ import annotations

from tests.faults.check import Check


def test_a_run_without_figures_has_shown_nothing() -> None:
    """A test that cannot fail is a defect."""
    assert not Check().holds


def test_one_figure_beyond_its_bound_fails_the_run() -> None:
    """And says which."""
    check = Check()
    check.at_most("recovery", 100.0, 200, "ms")
    check.says("requests", 300)
    assert check.holds
    check.exactly("lost", 1)
    assert not check.holds
    assert [str(figure) for figure in check.figures] == [
        "recovery 100 ms (<= 200 ms)",
        "requests 300",
        "NOT lost 1 (= 0)",
    ]


def test_bounds_count_from_both_sides() -> None:
    """At least, at most, exactly, and yes or no."""
    check = Check()
    check.at_least("seen", 3, 3)
    check.at_most("slow", 3, 3)
    check.exactly("order", "abc", "abc")
    check.true("age grows", [1])
    assert check.holds
    check.at_least("seen", 2, 3)
    assert not check.holds


def test_a_busy_machine_has_more_time_and_no_other_bound_is_wider() -> None:
    check = Check(slack=3.0)
    check.at_most("takes", 2.5, 1, "s")
    check.at_most("lost", 1, 0)
    assert [(figure.bound, figure.holds) for figure in check.figures] == [("<= 3 s", True), ("<= 0", False)]
