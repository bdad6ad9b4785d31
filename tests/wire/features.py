"""What the proxy cannot do yet, and which cases therefore cannot be run."""

from __future__ import annotations

from tests.wire.case import Case


def obstacle(case: Case) -> str:
    """Why a case cannot be run; empty where it can."""
    if case.phase != "1":
        return f"phase {case.phase}"
    if case.profile == "h2":
        return "no HTTP/2 yet"
    return ""
