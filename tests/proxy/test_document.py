"""Documents that people write: what is read, and what every fault says."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from proxy.document import (
    MAX_DOCUMENT_BYTES,
    Document,
    DocumentError,
    Duration,
    Fault,
    Percent,
    duration_s,
    duration_text,
    load,
    parse,
    percent_bp,
    percent_text,
    refuse,
    validate,
)


class Part(Document):
    """A part with a rule of its own."""

    some_name: str
    size: Annotated[int, Field(ge=1, le=9)] = 1

    @model_validator(mode="after")
    def _check(self) -> Part:
        refuse([Fault("someName", "{braces} are kept")] if self.some_name == "bad" else [])
        return self


class Whole(Document):
    """A document with a list, a duration and a percentage."""

    parts: tuple[Part, ...] = Field(min_length=1)
    wait: Duration = 90.0
    share: Percent = 25


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(Whole, text)
    assert str(caught.value) == "; ".join(str(fault) for fault in caught.value.faults)
    return [str(fault) for fault in caught.value.faults]


def test_yaml_and_json_are_the_same_document() -> None:
    """surface.md: YAML or JSON, camelCase fields."""
    yaml = parse(Whole, "parts: [{someName: a, size: 2}]\nwait: 10m\nshare: '0.25'\n")
    assert yaml == parse(Whole, json.dumps({"parts": [{"someName": "a", "size": 2}], "wait": "10m", "share": "0.25"}))
    assert (yaml.wait, yaml.share) == (600.0, 25)
    assert json.loads(yaml.model_dump_json(by_alias=True)) == {
        "parts": [{"someName": "a", "size": 2}],
        "wait": "10m",
        "share": "0.25",
    }


def test_every_fault_is_told_with_its_path() -> None:
    """house-style.md: validated whole; unknown keys refused; no silent conversion between types."""
    text = "parts: [{size: 10, some: 1}, {someName: 7, size: true}, {someName: bad}]\nwait: 5\nshare: 0.5\nxs: 1\n"
    assert faults(text) == [
        "parts[0].someName: required field is missing",
        "parts[0].size: Input should be less than or equal to 9 (got 10)",
        "parts[0].some: unknown field: remove it or check its spelling",
        "parts[1].someName: Input should be a valid string (got 7)",
        "parts[1].size: Input should be a valid integer (got True)",
        "parts[2].someName: {braces} are kept",
        "wait: expected a duration such as 90s, 10m or 1h30m, got 5",
        'share: expected a percentage, 0 to 100 or a string such as "0.25", got 0.5',
        "xs: unknown field: remove it or check its spelling",
    ]


def test_an_empty_list_and_one_of_faulty_items_are_told_apart() -> None:
    """A list whose items are at fault is not too short."""
    assert faults("parts: []") == ["parts: Tuple should have at least 1 item after validation, not 0"]
    assert faults("parts: [{}]") == ["parts[0].someName: required field is missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping, got NoneType"),
        ("- 1", "expected a mapping, got list"),
        ("parts", "expected a mapping, got str"),
        ("a: 1\na: 2", "key 'a' appears twice"),
        ('{"a": 1, "a": 2}', "key 'a' appears twice"),
        ("a: &x 1\nb: *x", "YAML alias *x is not allowed"),
        ("<<: {a: 1}", "tag:yaml.org,2002:merge"),
        ("1: 2", "key 1 is not a string"),
        ("? [a]\n: b", "is not a string"),
        ("a: [", "not valid YAML at line "),
        ("a: 1\n b: 2", "not valid YAML at line 2"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: \x00", "not valid YAML"),
        ("a: .nan", "only text, numbers, booleans, lists and mappings"),
        ("a: 2024-01-01", "only text, numbers, booleans, lists and mappings"),
        ("a: !!binary aGk=", "only text, numbers, booleans, lists and mappings"),
        ("a: " + "9" * 5000, "not a valid document"),
        ("[" * 10_000, "nested deeper than 32 levels"),
        ("a: " + "{b: " * 40 + "1" + "}" * 40, "nested deeper than 32 levels"),
        (b"a: \xff", "not UTF-8 at byte 3"),
        (" " * (MAX_DOCUMENT_BYTES + 1), f"document has 1048577 bytes; at most {MAX_DOCUMENT_BYTES} are read"),
    ],
    ids=[
        "empty", "list", "word", "twice", "twice-json", "alias", "merge", "number-key", "list-key", "open", "indent",
        "two", "object", "nul", "nan", "date", "bytes", "digits", "bomb", "deep", "not-utf-8", "long",
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_whole(text: str | bytes, message: str) -> None:
    """reliability.md F17: garbage of any kind is refused, never half read."""
    assert message in faults(text)[0]


def test_a_billion_laughs_is_no_document() -> None:
    """Aliases are refused before anything is expanded."""
    bomb = "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert "alias" in faults(bomb)[0]


def test_documents_are_frozen() -> None:
    """Parsed once, never changed."""
    whole = parse(Whole, "parts: [{someName: a}]")
    with pytest.raises(ValidationError, match="frozen"):
        whole.wait = 1.0
    assert hash(whole) == hash(parse(Whole, "parts: [{someName: a}]"))


def test_plain_values_are_validated_as_their_text_would_be() -> None:
    """What the admin API has parsed already."""
    value = {"parts": [{"someName": "a"}], "wait": "1h"}
    assert validate(Whole, value) == parse(Whole, json.dumps(value))
    with pytest.raises(DocumentError, match="expected a mapping, got list"):
        validate(Whole, [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h1m1s1ms", 3661.001),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("0s", 0),
    ],
)
def test_a_duration_reads_as_go_writes_it(text: str, seconds: float) -> None:
    """surface.md: 90s, 10m, 2h."""
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5 s", "5S", "1d", "1m1h", "1.2345s", "1e3s", "٣s", "5s\n", 5, True, None, []]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """No bare numbers: their unit would be a guess."""
    with pytest.raises(ValueError, match="expected a duration"):
        duration_s(text)


@given(st.integers(0, 10**9))
def test_a_duration_survives_its_text(millis: int) -> None:
    """Serialise then parse is the identity, to the millisecond."""
    text = duration_text(millis / 1000)
    assert round(duration_s(text) * 1000) == millis


@pytest.mark.parametrize(
    ("value", "bp"),
    [(0, 0), (100, 10_000), (25, 2_500), ("0.25", 25), ("0.3", 30), ("8.2", 820), ("100.00", 10_000), ("07", 700)],
)
def test_a_percentage_is_an_integer_or_a_string(value: object, bp: int) -> None:
    """surface.md: at most two decimals, never floats."""
    assert percent_bp(value) == bp


@pytest.mark.parametrize(
    "value", [-1, 101, 0.25, True, "", "0.255", "100.01", "-1", "1%", ".5", "5.", " 5", "٣", None, []]
)
def test_what_is_no_percentage_is_refused(value: object) -> None:
    """A float would not be what was written."""
    with pytest.raises(ValueError, match="expected a percentage"):
        percent_bp(value)


@given(st.integers(0, 10_000))
def test_a_percentage_survives_its_text(bp: int) -> None:
    """Two decimals, always."""
    assert percent_bp(percent_text(bp)) == bp
    assert len(percent_text(bp).partition(".")[2]) == 2


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_all_json_is_read_as_json(value: object) -> None:
    """The documents of the APIs are JSON; YAML 1.1 would read some of them in another way, or not at all."""
    assert load(json.dumps(value)) == value


def test_a_flow_mapping_of_yaml_is_read_too() -> None:
    """What begins like JSON need not be JSON."""
    assert load("{a: 1, b: [x, 'y']}") == {"a": 1, "b": ["x", "y"]}
    assert load('{"a": 1} # a comment') == {"a": 1}
