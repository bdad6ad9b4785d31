"""Documents that people write: YAML or JSON text in, a frozen model or every fault with its field path out."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MAX_DOCUMENT_BYTES = 1_048_576  # etcd's limit for one object is 1.5 MiB; a plan with 5,000 endpoints is 0.4 MB
MAX_DEPTH = 32  # the deepest document of ours is 9

SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Document(BaseModel):
    """Base of every model: camelCase fields, frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True, strict=True, ser_json_bytes="utf8"
    )


Model = TypeVar("Model", bound=Document)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a document: the field path as ``spec.routes[2].arm`` (empty: the whole) and what to do."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class DocumentError(ValueError):
    """A document refused as a whole.

    Attributes:
        faults: Every fault found, in document order; never empty.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


class _UniqueKeyLoader(SafeLoader):  # type: ignore[misc]  # the C loader has no type stub
    """Safe YAML that refuses a repeated key, which YAML 1.2 forbids and PyYAML lets win silently, and aliases."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(text: bytes | str) -> Any:
    """Read one YAML or JSON document into plain Python values.

    Args:
        text: The document; bytes must be UTF-8.

    Raises:
        DocumentError: Too large, not UTF-8, not YAML, several documents, aliases, repeated keys, nested too deep.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise DocumentError([Fault("", f"document has {len(text)} bytes; at most {MAX_DOCUMENT_BYTES} are read")])
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        if text.lstrip().startswith("{") and (value := _json(text)) is not None:
            return value
        depth = 0
        for event in yaml.parse(text, Loader=SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise DocumentError([Fault("", f"YAML alias *{event.anchor} is not allowed: write the value out")])
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise DocumentError([Fault("", f"nested deeper than {MAX_DEPTH} levels")])
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # derived from the safe loader
    except UnicodeDecodeError as error:
        raise DocumentError([Fault("", f"not UTF-8 at byte {error.start}")]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DocumentError([Fault("", f"not valid YAML{where}: {getattr(error, 'problem', None) or error}")]) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        raise DocumentError([Fault("", f"not a valid document: {error}")]) from None


def _json(text: str) -> Any:
    """A JSON object; None for anything else, which YAML then reads or tells the fault of.

    Faster by far, and YAML 1.1 is no superset: it has no surrogate pairs and reads ``1e3`` as text.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def parse(model: type[Model], text: bytes | str) -> Model:
    """Read and validate one document whole.

    Raises:
        DocumentError: With every fault found, each with its field path.
    """
    return validate(model, load(text))


def validate(model: type[Model], value: Any) -> Model:
    """Validate plain values, as ``load`` returns them, against a model.

    Raises:
        DocumentError: With every fault found, each with its field path.
    """
    if not isinstance(value, dict):
        raise DocumentError([Fault("", f"expected a mapping, got {type(value).__name__}")])
    try:
        return model.model_validate_json(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise DocumentError([Fault("", f"only text, numbers, booleans, lists and mappings: {error}")]) from None
        raise DocumentError([fault for item in _causes(error) for fault in _faults(item)]) from None


def refuse(faults: list[Fault]) -> None:
    """Called by a model's own validator: refuse the model with these faults, their paths relative to it.

    Raises:
        PydanticCustomError: If there is any fault.
    """
    if faults:
        text = "; ".join(str(fault) for fault in faults).replace("{", "{{").replace("}", "}}")
        raise PydanticCustomError("faults", text, {"faults": faults})


def _causes(error: ValidationError) -> list[Any]:
    """The errors without those that only follow from one below them: a list counted as empty as its item is faulty."""
    items = error.errors(include_url=False)
    parents = {item["loc"][:n] for item in items for n in range(len(item["loc"]))}
    return [item for item in items if item["type"] != "too_short" or item["loc"] not in parents]


def _faults(item: Any) -> list[Fault]:
    base = _path(item["loc"])
    if item["type"] == "faults":
        return [Fault(".".join(p for p in (base, fault.path) if p), fault.message) for fault in item["ctx"]["faults"]]
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "unknown field: remove it or check its spelling"
    elif item["type"] == "missing":
        message = "required field is missing"
    elif item["type"] != "value_error" and isinstance(item.get("input"), str | int | float | bool | None):
        message = f"{message} (got {item['input']!r})"
    return [Fault(base, message)]


def _path(location: tuple[str | int, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


DURATION = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$"  # for schemas
PERCENT = r"^(100(\.0{1,2})?|[0-9]{1,2}(\.[0-9]{1,2})?)$"

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,8}(?:\.\d{1,3})?)s)?(?:(\d{1,9})ms)?", re.ASCII)


def duration_s(text: object) -> float:
    """Seconds of a duration as Go writes it: ``90s``, ``1h30m``, ``250ms``.

    Raises:
        ValueError: Anything else, negative or bare numbers included.
    """
    if isinstance(text, float) and not isinstance(text, bool):
        return text  # already parsed: a model rebuilt from its own values
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not match or not text:
        raise ValueError(f"expected a duration such as 90s, 10m or 1h30m, got {text!r}")
    hours, minutes, seconds, millis = match.groups()
    return int(hours or 0) * 3600.0 + int(minutes or 0) * 60 + float(seconds or 0) + int(millis or 0) / 1000


def duration_text(seconds: float) -> str:
    """The shortest Go spelling of a duration: ``90.0`` is ``1m30s``."""
    millis = round(seconds * 1000)
    if millis % 1000:
        return f"{millis}ms"
    hours, rest = divmod(millis // 1000, 3600)
    minutes, secs = divmod(rest, 60)
    parts = [f"{n}{unit}" for n, unit in ((hours, "h"), (minutes, "m"), (secs, "s")) if n]
    return "".join(parts) or "0s"


_PERCENT = re.compile(r"(100(?:\.0{1,2})?|\d{1,2}(?:\.\d{1,2})?)", re.ASCII)


def percent_bp(value: object) -> int:
    """Basis points of a percentage: an integer, or a string with at most two decimals; never a float.

    Raises:
        ValueError: Anything else, or outside 0-100.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        return value * 100
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        whole, _, decimals = value.partition(".")
        return int(whole) * 100 + int(decimals.ljust(2, "0")[:2] or 0)
    raise ValueError(f'expected a percentage, 0 to 100 or a string such as "0.25", got {value!r}')


def percent_text(bp: int) -> str:
    """A percentage as people read it, always two decimals: 25 basis points are ``0.25``."""
    return f"{bp // 100}.{bp % 100:02d}"


Duration = Annotated[
    float,
    BeforeValidator(
        duration_s, json_schema_input_type=Annotated[str, Field(min_length=2, max_length=40, pattern=DURATION)]
    ),
    PlainSerializer(duration_text, return_type=str),
]
Percent = Annotated[
    int,
    BeforeValidator(
        percent_bp,
        json_schema_input_type=Annotated[int, Field(ge=0, le=100)]
        | Annotated[str, Field(min_length=1, max_length=6, pattern=PERCENT)],
    ),
    PlainSerializer(percent_text, return_type=str),
]
