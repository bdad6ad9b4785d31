"""CustomResourceDefinitions, made from the very models that read the files. Pure: models in, plain values out.

An API server wants a *structural* schema: no references, no ``anyOf``, no ``const``, no refusal of further keys (it
prunes those itself, and refuses them for clients that ask for strict validation). Bounds and patterns are the models'
own; what spans fields comes from `controller.rules`. Source: apiextensions.k8s.io/v1, JSONSchemaProps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from controller.resource import RolloutAction, RolloutStatus
from controller.rules import FORMATS, PATTERNS, RULES, Rule
from controller.spec import AnalysisTemplate, CanaryRollout
from proxy.document import DURATION, PERCENT, Document, duration_text, percent_text

Json = dict[str, Any]
GROUP, VERSION = "cohort.dev", "v1alpha1"
# Of an object that no controller has seen: without it, whoever waits for a status would take none for a good one.
UNSEEN: Json = {"observedGeneration": 0, "phase": "Pending"}
_KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required")
_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; ``wide`` ones only with ``-o wide``."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API server has it."""

    model: type[Document]
    plural: str
    short: tuple[str, ...]
    status: type[Document] | None = None
    columns: Sequence[Column] = field(default=())

    @property
    def kind(self) -> str:
        """As documents spell it."""
        return self.model.__name__


_AGE = Column("Age", ".metadata.creationTimestamp", "date", description="Since when it is there.")
RESOURCES = (
    Resource(
        CanaryRollout,
        "canaryrollouts",
        ("cro",),
        RolloutStatus,
        (
            Column("Phase", ".status.phase", description="Where the rollout is."),
            Column("Step", ".status.step.index", "integer", description="Steps that are done."),
            Column("Weight", ".status.weight.programmed", description="The canary's share of users, per cent."),
            Column("Measured", ".status.weight.measured", description="Of the users that came."),
            Column("Verdict", ".status.verdict.decision", description="What the evidence says."),
            Column("Stable", ".status.revision.stable", wide=True, description="The revision that is stable."),
            Column("Canary", ".status.revision.canary", wide=True, description="The revision on trial."),
            Column("Reason", ".status.verdict.reason", wide=True, description="Why, in one word."),
            Column("Leader", ".status.leader.identity", wide=True, description="The controller that decides."),
            _AGE,
        ),
    ),
    Resource(
        RolloutAction,
        "rolloutactions",
        ("cra",),
        columns=(
            Column("Rollout", ".spec.rollout", description="What is steered."),
            Column("Verb", ".spec.verb", description="What is asked for."),
            Column("Revision", ".spec.revision", description="The revision that is meant."),
            Column("By", ".spec.requestedBy", description="Who asks."),
            _AGE,
        ),
    ),
    Resource(AnalysisTemplate, "analysistemplates", ("cat",), columns=(_AGE,)),
)


def definition(resource: Resource) -> Json:
    """The CustomResourceDefinition of one kind."""
    version: Json = {"name": VERSION, "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": _root(resource)}
    if resource.status:
        version["subresources"] = {"status": {}}
    version["additionalPrinterColumns"] = [_column(column) for column in resource.columns]
    names = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "shortNames": list(resource.short),
        "categories": ["cohort"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: the same default in two places is written out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text(definition: Json) -> str:
    """A definition as the YAML file that is committed."""
    made: str = yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return f"# Made by `cohort schema --crd` from the models that read the files: change those.\n{made}"


def _column(column: Column) -> Json:
    shown: Json = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return shown | ({"priority": 1} if column.wide else {})


def _root(resource: Resource) -> Json:
    """The schema of whole objects: of ``metadata`` an API server lets only the name be restricted."""
    document = structural(resource.model)
    name = document["properties"]["metadata"]["properties"]["name"]
    properties: Json = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": resource.kind},
        "metadata": {"type": "object", "properties": {"name": {k: v for k, v in name.items() if k != "description"}}},
        "spec": document["properties"]["spec"],
    }
    if resource.status:
        properties["status"] = structural(resource.status) | {"default": UNSEEN}
    root: Json = {"type": "object", "description": document["description"], "required": ["spec"]}
    return root | {"properties": properties}


def structural(model: type[Document]) -> Json:
    """The structural schema of a model."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    return _Structure(definitions).value(schema)


_BY_NAME: Mapping[str, tuple[Rule, ...]] = {model.__name__: rules for model, rules in RULES.items()}


@dataclass(frozen=True, slots=True)
class _Structure:
    """Makes schemas structural; ``definitions`` are those that others refer to."""

    definitions: Mapping[str, Json]

    def value(self, schema: Json) -> Json:
        """One schema, of a model or of a field."""
        schema = self._resolve(schema)
        made: Json = {"description": text} if (text := _summary(schema.get("description", ""))) else {}
        made |= {key: schema[key] for key in _KEPT if key in schema}
        if "const" in schema:
            made["enum"] = [schema["const"]]
        if "properties" in schema:
            made["properties"] = self._properties(schema)
        elif made.get("type") == "object":
            made["x-kubernetes-preserve-unknown-fields"] = True
        if "items" in schema:
            made |= self._items(schema["items"])
        return made | _refined(schema)

    def _resolve(self, schema: Json) -> Json:
        """Without references, ``null`` and unions."""
        if "$ref" in schema:
            target = self.definitions[schema["$ref"].rpartition("/")[2]]
            schema = target | {key: value for key, value in schema.items() if key != "$ref"}
            return self._resolve(schema)
        if "anyOf" not in schema:
            return schema
        kinds = [kind for kind in map(self._resolve, schema["anyOf"]) if kind.get("type") != "null"]
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        if len(kinds) == 1:
            return kinds[0] | rest
        merged = {key: value for kind in kinds for key, value in kind.items() if key != "type"}
        return merged | rest | {"x-kubernetes-int-or-string": True}

    def _items(self, schema: Json) -> Json:
        """Of a list: atomic, but for conditions, as everywhere, and where only a set is checked for repetitions.

        Without defaults within: the server would write them into a value that is somebody's as a whole, and another
        manager who applies the same manifest would find a conflict. Whoever reads the object has them anyhow.
        """
        item = self._resolve(schema)
        made = {"items": _without_defaults(self.value(item))}
        if item.get("format") == "ip-port":
            return made | {"x-kubernetes-list-type": "set"}
        if item.get("title") == "ConditionStatus":
            return made | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        return made

    def _properties(self, schema: Json) -> Json:
        told = _attributes(schema.get("description", ""))
        made = {}
        for name, part in schema["properties"].items():
            made[name] = self.value(part)
            if name in told:
                made[name] = {"description": told[name]} | {k: v for k, v in made[name].items() if k != "description"}
        return made


def _without_defaults(schema: Json) -> Json:
    """A schema of which the server writes nothing by itself."""
    made = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in made:
        made["properties"] = {name: _without_defaults(part) for name, part in made["properties"].items()}
    return made | ({"items": _without_defaults(made["items"])} if "items" in made else {})


def _refined(schema: Json) -> Json:
    """What JSON Schema has no word for, or another: formats, durations, percentages, defaults, rules."""
    made: Json = {}
    rules = list(FORMATS.get(schema.get("format", ""), ()))
    if "properties" in schema:
        rules += _BY_NAME.get(schema["title"], ())
    if schema.get("format") in PATTERNS:
        made["pattern"] = PATTERNS[schema["format"]]
    if schema.get("x-kubernetes-int-or-string"):
        made["x-kubernetes-int-or-string"] = True
    default = schema.get("default")
    if schema.get("pattern") == DURATION:
        rules += _bounds(schema, "duration(self)", lambda bound: f"duration('{duration_text(bound)}')")
        default = duration_text(default) if isinstance(default, float) else default
    elif schema.get("pattern") == PERCENT:
        rules += _bounds(schema, "double(self)", lambda bound: f"{bound / 100:.2f}")
        default = _percent(default) if isinstance(default, int) else default
    if default not in (None, "", []):
        made["default"] = _without_nulls(default)
    return made | _validations(rules)


def _bounds(schema: Json, value: str, literal: Callable[[float], str]) -> list[Rule]:
    """Bounds of what is written as text."""
    signs = {"ge": (">=", "at least"), "gt": (">", "above"), "le": ("<=", "at most")}
    found = []
    for key, (sign, words) in signs.items():
        if key in schema:
            text = literal(schema[key])
            found.append(Rule(f"{value} {sign} {text}", f"expected {words} {_bare(text)}"))
    return found


def _bare(literal: str) -> str:
    return literal.removeprefix("duration('").removesuffix("')")


def _percent(bp: int) -> int | str:
    """A percentage as people write it."""
    return percent_text(bp) if bp % 100 else bp // 100


def _without_nulls(value: Any) -> Any:
    """A default as it would be written."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _validations(rules: Sequence[Rule]) -> Json:
    if not rules:
        return {}
    made = [
        {"rule": rule.cel, "message": rule.message} | ({"fieldPath": f".{rule.path}"} if rule.path else {})
        for rule in rules
    ]
    return {"x-kubernetes-validations": made}


def _summary(text: str) -> str:
    """A docstring without its sections, as plain text in one paragraph each."""
    text = text.partition("\nAttributes:")[0].strip()
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).replace("``", "")


def _attributes(text: str) -> Mapping[str, str]:
    """What a docstring says of each field, by the name that people write."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("\nAttributes:\n")[2].splitlines():
        if match := _ATTRIBUTE.match(line):
            name = to_camel(match[1])
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: words.replace("``", "") for name, words in found.items()}
