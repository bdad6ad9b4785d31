"""The kinds of documents and their models, imported by name: the root of the command line may know every part."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.document import Document

KINDS = {
    "CanaryRollout": "controller.spec:CanaryRollout",
    "AnalysisTemplate": "controller.spec:AnalysisTemplate",
    "Plan": "proxy.plan:Plan",
    "ProxySettings": "proxy.config:ProxySettings",
    "ControllerSettings": "controller.spec:ControllerSettings",
}


def model(kind: str) -> type[Document]:
    """The model of one of `KINDS`. Cost: at first 0.2 s for pydantic."""
    module, _, name = KINDS[kind].partition(":")
    found: type[Document] = getattr(importlib.import_module(module), name)
    return found
