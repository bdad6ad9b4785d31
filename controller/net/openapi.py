"""The OpenAPI description of the controller's API, made from the very models that read requests and write answers."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from controller.messages import (
    ActionAnswer,
    ActionRequest,
    EventAnswer,
    Failure,
    PreviewAnswer,
    PreviewRequest,
    WhoamiAnswer,
)
from controller.spec import RolloutSpec
from controller.status import Status
from proxy.document import Document

_REFERENCE = "#/components/schemas/{model}"
_READ = (Status, ActionAnswer, EventAnswer, PreviewAnswer, WhoamiAnswer, Failure, RolloutSpec)
_WRITTEN = (ActionRequest, PreviewRequest)

_ONE = "/api/v1/rollouts/{namespace}/{name}"
_NAMES = ("namespace", "name")


def openapi() -> dict[str, Any]:
    """The whole document."""
    place = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _NAMES]
    found = _document()
    for path, operations in found["paths"].items():
        if path.startswith(_ONE):
            operations["parameters"] = place
    return found


def _document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cohort controller",
            "version": "v1",
            "description": "Rollouts: how they stand, what happened, and the verbs that steer them.",
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/api/v1/rollouts": {
                "get": _operation("listRollouts", "Every rollout", _items(_ref("Rollout")), query=("namespace",))
            },
            _ONE: {
                "get": _operation(
                    "getRollout",
                    "One rollout; with wait (seconds, at most 60) and since (a resourceVersion), as soon as it differs",
                    _ref("Rollout"),
                    query=("wait", "since"),
                    fails=(404, 422),
                )
            },
            f"{_ONE}/events": {
                "get": _operation(
                    "listEvents",
                    "What happened, oldest first, with numbers above after; at most 1000",
                    _items(_ref("EventAnswer")),
                    query=("after",),
                    fails=(404, 422),
                )
            },
            f"{_ONE}/actions": {
                "post": _operation(
                    "act",
                    "Steer a rollout; 409 says why it is refused, 503 that the state could not be stored",
                    _ref("ActionAnswer"),
                    body="ActionRequest",
                    fails=(404, 409, 415, 422, 503),
                )
            },
            f"{_ONE}/whoami": {
                "get": _operation(
                    "whoami",
                    "The version of a user: key is SOURCE=VALUE",
                    _ref("WhoamiAnswer"),
                    query=("key",),
                    fails=(404, 409, 422),
                )
            },
            f"{_ONE}/preview": {
                "post": _operation(
                    "preview",
                    "A link that pins a browser to a version",
                    _ref("PreviewAnswer"),
                    body="PreviewRequest",
                    fails=(404, 409, 415, 422),
                )
            },
            "/api/v1/openapi.json": {"get": _operation("openapi", "This document", {"type": "object"})},
            "/metrics": {"get": _operation("metrics", "For Prometheus", None, fails=())},
            "/healthz": {"get": _operation("healthz", "200 while the controller's loop turns", None, fails=())},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _operation(
    name: str,
    summary: str,
    answer: dict[str, Any] | None,
    *,
    query: tuple[str, ...] = (),
    body: str | None = None,
    fails: tuple[int, ...] = (422,),
) -> dict[str, Any]:
    content = {"application/json": {"schema": answer}} if answer else {"text/plain": {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": summary, "content": content}}
    for status in (401, 403, *fails):
        failure = {"application/json": {"schema": _ref("Failure")}}
        responses[str(status)] = {"description": _STATUS[status], "content": failure}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if query:
        operation["parameters"] = [{"name": q, "in": "query", "schema": {"type": "string"}} for q in query]
    if body:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return operation


_STATUS = {
    401: "the token is missing or wrong",
    403: "a foreign host or origin",
    404: "there is no such rollout",
    409: "it makes no sense now",
    415: "the body is not JSON",
    422: "a field is wrong",
    503: "try again",
}


def _ref(model: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model)}


def _items(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": item}},
        "additionalProperties": False,
    }


def _schemas() -> dict[str, Any]:
    read: list[tuple[type[Document], Any]] = [(model, "serialization") for model in _READ]
    written: list[tuple[type[Document], Any]] = [(model, "validation") for model in _WRITTEN]
    _, found = models_json_schema(read + written, by_alias=True, ref_template=_REFERENCE)
    metadata = {
        "type": "object",
        "required": ["name", "namespace", "uid", "generation"],
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "uid": {"type": "string"},
            "generation": {"type": "integer"},
        },
        "additionalProperties": False,
    }
    rollout = {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec", "status"],
        "properties": {
            "apiVersion": {"const": "cohort.dev/v1alpha1"},
            "kind": {"const": "CanaryRollout"},
            "metadata": metadata,
            "spec": {"anyOf": [_ref("RolloutSpec"), {"type": "object", "maxProperties": 0}]},
            "status": _ref("Status"),
        },
        "additionalProperties": False,
    }
    return {**found["$defs"], "Rollout": rollout}
