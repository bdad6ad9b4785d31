"""Conditions on a measurement, as Argo writes them: ``result[0] >= 0.99 && result[0] <= 1``.

A condition compares the result with numbers; ``&&``, ``||``, ``!`` and parentheses join comparisons, with the
precedence that Argo's expression language has. It is parsed once, when the document is read. Each comparison has the
result on exactly one side, so that no condition is true whatever was measured.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

MAX_LENGTH = 1024  # the longest condition in Argo's own examples has 120 characters
MAX_DEPTH = 32  # bounds recursion in the parser and in `holds`

# So many digits are more than a float keeps, and never too large for one.
NUMBER = r"-?([0-9]{1,30}(\.[0-9]{1,30})?|\.[0-9]{1,30})([eE][-+]?[0-9]{1,2})?"
_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<result>result(?:\s*\[\s*0\s*\])?)(?![\w.\[(])"
    r"|(?P<sign>&&|\|\||>=|<=|==|!=|[<>!()]))",
    re.ASCII,
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_SIGN = "(>=|<=|==|!=|>|<)"
_RESULT = r"result(\s*\[\s*0\s*\])?"
_ATOM = rf"\s*([!(]\s*)*({_RESULT}\s*{_SIGN}\s*{NUMBER}|{NUMBER}\s*{_SIGN}\s*{_RESULT})\s*(\)\s*)*"
# Every condition, and those whose parentheses do not match: what a regular expression can say of the grammar.
PATTERN = rf"^{_ATOM}((&&|\|\|){_ATOM})*$"
_MIRROR = {">=": "<=", "<=": ">=", ">": "<", "<": ">", "==": "==", "!=": "!="}


class ConditionError(ValueError):
    """A condition that cannot be read, or a result that it cannot be asked about."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result on the left, a number on the right."""

    sign: str
    number: float


@dataclass(frozen=True, slots=True)
class Not:
    """True when its part is not."""

    part: Condition


@dataclass(frozen=True, slots=True)
class All:
    """True when every part is: ``&&``."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True when a part is: ``||``."""

    parts: tuple[Condition, ...]


Condition = Comparison | Not | All | AnyOf


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConditionError: Says where and what was expected.
    """
    if len(text) > MAX_LENGTH:
        raise ConditionError(f"a condition has at most {MAX_LENGTH} characters, got {len(text)}")
    parser = _Parser(text)
    tree = parser.either(0)
    parser.end()
    return tree


def holds(condition: Condition, result: float) -> bool:
    """Whether a condition is true of a result.

    Raises:
        ConditionError: The result is NaN, of which nothing can be said: every comparison with it is false, and so the
            negation of any true.
    """
    if math.isnan(result):
        raise ConditionError("the result is not a number (NaN), so the condition is neither true nor false")
    return _holds(condition, result)


def _holds(condition: Condition, result: float) -> bool:
    match condition:
        case Comparison(sign, number):
            return _COMPARE[sign](result, number)
        case Not(part):
            return not _holds(part, result)
        case All(parts):
            return all(_holds(part, result) for part in parts)
        case AnyOf(parts):
            return any(_holds(part, result) for part in parts)


class _Parser:
    """Recursive descent.

    ``either = both *("||" both)``, ``both = one *("&&" one)``, ``one = *"!" ("(" either ")" / comparison)``
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0

    def either(self, depth: int) -> Condition:
        parts = [self._both(depth)]
        while self._take("||"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def end(self) -> None:
        kind, text, at = self._peek()
        if kind != "end":
            raise ConditionError(f"expected && or || or the end at character {at + 1}, got {text!r}")

    def _both(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._take("&&"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self, depth: int) -> Condition:
        is_negated = False
        while self._take("!"):
            is_negated = not is_negated
        tree = self._nested(depth) if self._take("(") else self._comparison()
        return Not(tree) if is_negated else tree

    def _nested(self, depth: int) -> Condition:
        if depth == MAX_DEPTH:
            raise ConditionError(f"nested deeper than {MAX_DEPTH} levels")
        tree = self.either(depth + 1)
        if not self._take(")"):
            _, text, at = self._peek()
            raise ConditionError(f"expected ) at character {at + 1}, got {text!r}")
        return tree

    def _comparison(self) -> Comparison:
        at = self._peek()[2]
        left, sign, right = self._operand(), self._sign(), self._operand()
        if (left is None) == (right is None):
            raise ConditionError(
                f"the comparison at character {at + 1} needs the result on one side, a number on the other"
            )
        if right is None:
            assert left is not None  # the check above
            return Comparison(_MIRROR[sign], left)
        return Comparison(sign, right)

    def _operand(self) -> float | None:
        kind, text, at = self._peek()
        if kind not in ("number", "result"):
            raise ConditionError(f"expected result, result[0] or a number at character {at + 1}, got {text!r}")
        self._next += 1
        if kind == "result":
            return None
        if not re.fullmatch(NUMBER, text):
            raise ConditionError(f"the number at character {at + 1} is too large, too small or too long")
        return float(text)

    def _sign(self) -> str:
        _, text, at = self._peek()
        if text not in _COMPARE:
            raise ConditionError(f"expected one of {' '.join(_COMPARE)} at character {at + 1}, got {text!r}")
        self._next += 1
        return text

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next]

    def _take(self, sign: str) -> bool:
        if self._peek()[:2] != ("sign", sign):
            return False
        self._next += 1
        return True


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind, text and place of each token; the last is the end."""
    found = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if not match:
            rest = text[at:].lstrip()
            raise ConditionError(
                f"expected a comparison of result or result[0] with a number at character {len(text) - len(rest) + 1}, "
                f"got {rest[:20]!r}"
            )
        kind = str(match.lastgroup)
        found.append((kind, match[kind], match.start(kind)))
        at = match.end()
    return [*found, ("end", "the end", len(text))]
