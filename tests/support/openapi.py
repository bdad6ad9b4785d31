"""An OpenAPI file as a test uses it: which operations there are, and whether an answer is as it says.

Knows the words of JSON Schema that our file uses, and refuses any other, so that none is overlooked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = {"description", "format"}


class OpenApi:
    """One file."""

    def __init__(self, path: Path) -> None:
        self._document = yaml.safe_load(path.read_text())

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Method and path of each."""
        return {(method.upper(), path) for path, item in self._document["paths"].items() for method in item}

    def check(self, method: str, path: str, status: int, body: Any) -> None:
        """Raise AssertionError unless this answer of an operation is documented."""
        responses = self._document["paths"][path][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {path}: {status} is not documented"
        response = self._resolve(responses[str(status)])
        self._match(response["content"]["application/json"]["schema"], body, f"{method} {path} {status}")

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in node:
            found = self._document
            for name in node["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            node = found
        return node

    def _match(self, schema: dict[str, Any], value: Any, at: str) -> None:
        schema = self._resolve(schema)
        for word, wanted in schema.items():
            if word not in _NOTES:
                getattr(self, f"_check_{word}")(wanted, value, at, schema)

    def _check_type(self, wanted: Any, value: Any, at: str, _: Any) -> None:
        names = wanted if isinstance(wanted, list) else [wanted]
        fits = any(isinstance(value, _TYPES[n]) and (n == "boolean" or not isinstance(value, bool)) for n in names)
        assert fits, f"{at}: expected {wanted}, got {value!r}"

    def _check_required(self, wanted: list[str], value: Any, at: str, _: Any) -> None:
        assert set(wanted) <= set(value), f"{at}: {set(wanted) - set(value)} missing"

    def _check_properties(self, wanted: dict[str, Any], value: Any, at: str, _: Any) -> None:
        for name in wanted.keys() & value.keys():
            self._match(wanted[name], value[name], f"{at}.{name}")

    def _check_additionalProperties(self, wanted: Any, value: Any, at: str, schema: Any) -> None:
        for name in value.keys() - schema.get("properties", {}).keys():
            assert wanted is not False, f"{at}: {name} is not documented"
            if isinstance(wanted, dict):
                self._match(wanted, value[name], f"{at}.{name}")

    def _check_items(self, wanted: Any, value: Any, at: str, _: Any) -> None:
        for index, item in enumerate(value):
            self._match(wanted, item, f"{at}[{index}]")

    def _check_oneOf(self, wanted: list[Any], value: Any, at: str, _: Any) -> None:
        def fits(schema: Any) -> bool:
            try:
                self._match(schema, value, at)
            except AssertionError:
                return False
            return True

        assert sum(map(fits, wanted)) == 1, f"{at}: {value!r} is not exactly one of the forms"

    def _check_const(self, wanted: Any, value: Any, at: str, _: Any) -> None:
        assert value == wanted, f"{at}: expected {wanted!r}, got {value!r}"

    def _check_enum(self, wanted: list[Any], value: Any, at: str, _: Any) -> None:
        assert value in wanted, f"{at}: expected one of {wanted}, got {value!r}"

    def _check_pattern(self, wanted: str, value: Any, at: str, _: Any) -> None:
        assert re.search(wanted, value), f"{at}: {value!r} does not match {wanted}"

    def _check_minimum(self, wanted: float, value: Any, at: str, _: Any) -> None:
        assert value is None or value >= wanted, f"{at}: {value} is below {wanted}"

    def _check_maximum(self, wanted: float, value: Any, at: str, _: Any) -> None:
        assert value is None or value <= wanted, f"{at}: {value} is above {wanted}"
