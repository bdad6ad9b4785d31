"""What a Pod tells its containers about itself and takes from ConfigMaps and Secrets: variables and files.

The rules are those of the API reference for EnvVar, EnvFromSource, DownwardAPI and the volume sources.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

Lookup = Callable[[str, str], Awaitable[dict[str, bytes] | None]]  # (configmaps or secrets, name) to its data
Document = Mapping[str, Any]
REFERENCE = re.compile(r"\$(?:(\$)|\(([^()]+)\))")
SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.+)'\]")
SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1.0}


class Missing(Exception):
    """What a Pod refers to is not there (yet)."""


def data_of(item: Document) -> dict[str, bytes]:
    """The entries of a ConfigMap or a Secret."""
    if item.get("kind") == "Secret" or "type" in item:
        return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (item.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}


def field(pod: Document, path: str) -> str:
    """The value of a ``fieldRef``.

    Raises:
        Missing: There is no such field.
    """
    if found := SUBSCRIPT.fullmatch(path):
        return str(_walk(pod, found[1]).get(found[2], ""))
    value = _walk(pod, path)
    if isinstance(value, Mapping):  # labels or annotations as a whole, as a file has them
        return "\n".join(f'{key}="{text}"' for key, text in sorted(value.items()))
    if isinstance(value, list):
        return ",".join(item["ip"] for item in value)
    return str(value)


def _walk(pod: Document, path: str) -> Any:
    value: Any = pod
    for name in path.split("."):
        if name not in value:
            if name in ("labels", "annotations"):
                return {}
            raise Missing(f"no field {path}")
        value = value[name]
    return value


def resource(containers: Sequence[Document], reference: Document, own: str) -> str:
    """The value of a ``resourceFieldRef``, rounded up to its divisor; 0 where nothing is set."""
    name = reference.get("containerName") or own
    group, _, which = reference["resource"].partition(".")
    (container,) = [one for one in containers if one["name"] == name]
    given = (container.get("resources") or {}).get(group, {}).get(which, "0")
    divisor = quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(math.ceil(quantity(str(given)) / divisor))


def quantity(text: str) -> float:
    """A number with one of Kubernetes' suffixes."""
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", text)
    assert found, text
    return float(found[1]) * SUFFIXES[found[2]]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in for ``$(NAME)``; what is not known stays as it is, and ``$$`` is a dollar."""

    def put(found: re.Match[str]) -> str:
        return "$" if found[1] else variables.get(found[2], found[0])

    return REFERENCE.sub(put, text)


async def environment(pod: Document, container: Document, base: Mapping[str, str], look: Lookup) -> dict[str, str]:
    """All variables of a container, its own over those of ``envFrom`` over ``base``.

    Raises:
        Missing: A ConfigMap, a Secret or a key that is not optional.
    """
    result = dict(base)
    for source in container.get("envFrom") or ():
        for kind, group in (("configMapRef", "configmaps"), ("secretRef", "secrets")):
            if reference := source.get(kind):
                data = await look(group, reference["name"])
                if data is None and not reference.get("optional"):
                    raise Missing(f"{group} {reference['name']} not found")
                result |= {source.get("prefix", "") + key: value.decode() for key, value in (data or {}).items()}
    for one in container.get("env") or ():
        value = await _value(pod, container, one, look)
        if value is not None:
            result[one["name"]] = value if "valueFrom" in one else expand(value, result)
    return result


async def _value(pod: Document, container: Document, one: Document, look: Lookup) -> str | None:
    source = one.get("valueFrom")
    if not source:
        return str(one.get("value", ""))
    if reference := source.get("fieldRef"):
        return field(pod, reference["fieldPath"])
    if reference := source.get("resourceFieldRef"):
        return resource(pod["spec"]["containers"], reference, container["name"])
    group, reference = _keyed(source)
    data = await look(group, reference["name"])
    if data is not None and reference["key"] in data:
        return data[reference["key"]].decode()
    if reference.get("optional"):
        return None
    raise Missing(f"{group} {reference['name']} has no {reference['key']}")


def _keyed(source: Document) -> tuple[str, Document]:
    if "configMapKeyRef" in source:
        return "configmaps", source["configMapKeyRef"]
    return "secrets", source["secretKeyRef"]


async def entries(source: Document, group: str, name: str, look: Lookup) -> dict[str, tuple[bytes, int | None]]:
    """Files of a ConfigMap or Secret volume by path, each with its mode if the item names one.

    Raises:
        Missing: It, or a key that its items name, and not optional.
    """
    data = await look(group, name)
    if data is None:
        if source.get("optional"):
            return {}
        raise Missing(f"{group} {name} not found")
    if not source.get("items"):
        return {key: (value, None) for key, value in data.items()}
    result = {}
    for item in source["items"]:
        if item["key"] in data:
            result[item["path"]] = data[item["key"]], item.get("mode")
        elif not source.get("optional"):
            raise Missing(f"{group} {name} has no {item['key']}")
    return result


def downward(pod: Document, items: Sequence[Document]) -> dict[str, tuple[bytes, int | None]]:
    """Files of a downwardAPI volume."""
    result = {}
    for item in items:
        if reference := item.get("fieldRef"):
            text = field(pod, reference["fieldPath"])
        else:
            text = resource(pod["spec"]["containers"], item["resourceFieldRef"], "")
        result[item["path"]] = text.encode(), item.get("mode")
    return result
