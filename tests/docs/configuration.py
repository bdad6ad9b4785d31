"""The tables of docs/configuration.md: types, ranges and defaults from the models, meaning and reason by hand.

A table follows a line ``<!-- fields: module.Model -->``. Its last column is the page's own text and kept; all else
is written anew, so the page cannot say anything about a field that the model does not hold.
"""

from __future__ import annotations

import importlib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from controller.messages import PRINTABLE
from controller.resource import RolloutAction
from controller.spec import AnalysisTemplate, CanaryRollout, ControllerSettings
from controller.version import LABEL, PortName
from proxy.config import ProxySettings
from proxy.document import Document, duration_s, duration_text, percent_bp
from proxy.plan import NAME, TOKEN, Plan, Revision

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
ROOTS: tuple[type[Document], ...] = (
    ProxySettings,
    Plan,
    CanaryRollout,
    AnalysisTemplate,
    RolloutAction,
    ControllerSettings,
)
MARK = re.compile(r"<!-- fields: (\S+)\.(\w+) -->\n\n((?:\|.*\n)*)")
HEADER = "| field | value | default | what it is, and why the default |\n|---|---|---|---|\n"

REVISION = next(bound.pattern for bound in get_args(Revision)[1].metadata if hasattr(bound, "pattern"))
PORT_NAME = next(bound.pattern for bound in get_args(PortName)[1].metadata if hasattr(bound, "pattern"))
SHAPES = {  # what a validator's function or a pattern stands for
    "_listen": "`:PORT`, `IPV4:PORT` or `[IPV6]:PORT`",
    "_listen_or_unix": "`unix:PATH`, `:PORT`, `IPV4:PORT` or `[IPV6]:PORT`",
    "_server": "`IPV4`, `IPV4:PORT`, `[IPV6]` or `[IPV6]:PORT`",
    "_received_by": "token of RFC 9110, with or without `:PORT`",
    "_host_name": "DNS name",
    "_network": "network, `192.0.2.0/24`",
    "_target": "path that starts with `/`, with or without a query",
    "_path": "path that starts with `/`",
    "_address": "`IPV4:PORT` or `[IPV6]:PORT`",
    "_condition": "condition, `result[0] >= 0.99`",
    NAME: "name: a-z, 0-9 and `-`",
    TOKEN: "token of RFC 9110",
    REVISION: "revision: letters, digits and `-_.:/@`",
    PORT_NAME: "name of a port",
    LABEL: "key of a label",
    PRINTABLE: "text without control characters",
}


def reachable(roots: Iterable[type[Document]]) -> list[type[Document]]:
    """The models and every model in their fields, in the order met."""
    found: list[type[Document]] = []
    queue = list(roots)
    while queue:
        model = queue.pop(0)
        if model not in found:
            found.append(model)
            queue += [inner for field in model.model_fields.values() for inner in _models(field.annotation)]
    return found


def render(page: str) -> str:
    """The page with each table as its model has it."""
    return MARK.sub(_table, page)


def described(page: str) -> list[type[Document]]:
    """The models whose tables the page has."""
    return [_model(mark[1], mark[2]) for mark in MARK.finditer(page)]


def texts(page: str) -> dict[str, str]:
    """The hand-written column by ``Model.field``."""
    found = {}
    for mark in MARK.finditer(page):
        found |= {f"{mark[2]}.{field}": text for field, text in _kept(mark[3]).items()}
    return found


def _table(mark: re.Match[str]) -> str:
    kept = _kept(mark[3])
    rows = [
        f"| `{field.alias}` | {_value(name, field)} | {_default(field)} | {kept.get(str(field.alias), '')} |\n"
        for name, field in _model(mark[1], mark[2]).model_fields.items()
    ]
    return f"<!-- fields: {mark[1]}.{mark[2]} -->\n\n{HEADER}{''.join(rows)}"


def _kept(table: str) -> dict[str, str]:
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()[2:]]
    return {row[0].strip().strip("`"): row[-1].strip() for row in cells}


def _model(module: str, name: str) -> type[Document]:
    model = getattr(importlib.import_module(module), name)
    assert issubclass(model, Document)
    return model


def _models(annotation: Any) -> Iterator[type[Document]]:
    if isinstance(annotation, type) and issubclass(annotation, Document):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _value(name: str, field: FieldInfo) -> str:
    text = _describe(field.annotation, field.metadata)
    return text.replace("integer", "bytes", 1) if name.endswith("_bytes") else text


def _describe(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in words, with its bounds."""
    metadata = [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
    bounds = {
        key: getattr(item, key)
        for item in metadata
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
        if getattr(item, key, None) is not None
    }
    functions = [item.func for item in metadata if hasattr(item, "func")]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(one, metadata) for one in inner if one is not type(None))
    if origin is typing.Annotated:
        return _describe(inner[0], [*annotation.__metadata__, *metadata])
    if origin is tuple:
        return f"list{_count(bounds)} of {_describe(inner[0])}"
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is dict:
        return "mapping"
    if annotation is bool:
        return "`true`, `false`"
    if duration_s in functions:
        return f"duration{_range(bounds, duration_text)}"
    if percent_bp in functions:
        return "percentage, 0 to 100"
    if annotation is int:
        return f"integer{_range(bounds, _number)}"
    if annotation is str:
        keys = [*(function.__name__ for function in functions), bounds.get("pattern")]
        shape = next((SHAPES[key] for key in keys if key in SHAPES), None)
        pattern = str(bounds.get("pattern", "")).replace("|", "\\|")
        return (shape or (f"text `{pattern}`" if pattern else "text")) + _length(bounds)
    return f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _number(value: int) -> str:
    """Digits in groups; large powers of two as such."""
    return f"2^{value.bit_length() - 1}" if value >= 2**31 and value & (value - 1) == 0 else f"{value:,}"


def _range(bounds: dict[str, Any], show: Any) -> str:
    low = f"from {show(bounds['ge'])}" if "ge" in bounds else f"above {show(bounds['gt'])}" if "gt" in bounds else ""
    high = f"to {show(bounds['le'])}" if "le" in bounds else ""
    text = " ".join(part for part in (low, high) if part).removeprefix("from " if low and high else "\0")
    return f", {text}" if text else ""


def _count(bounds: dict[str, Any]) -> str:
    low, high = bounds.get("min_length", 0), bounds.get("max_length")
    return f" ({low} to {high:,})" if high else f" ({low} or more)" if low else ""


def _length(bounds: dict[str, Any]) -> str:
    return f", at most {bounds['max_length']:,} characters" if "max_length" in bounds else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    functions = [item.func for item in field.metadata if hasattr(item, "func")]
    if value is None:
        return "absent"
    if value in ((), ""):
        return "none"
    if duration_s in functions:
        return f"`{duration_text(value)}`"
    if percent_bp in functions:
        return f"`{value / 100:g}`"
    if isinstance(value, Document):
        return "its defaults"
    if isinstance(value, tuple):
        shown = ", ".join(_short(item) for item in value)
        return "one with its defaults" if shown == "{}" else f"`{shown}`"
    return (
        f"`{str(value).lower()}`"
        if isinstance(value, bool)
        else f"`{value:,}`"
        if isinstance(value, int)
        else f"`{value}`"
    )


def _short(item: Document | str) -> str:
    if isinstance(item, str):
        return item
    return item.model_dump_json(by_alias=True, exclude_defaults=True, exclude_none=True).replace('"', "")
