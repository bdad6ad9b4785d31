"""What is measured, how it is written, and what of it a table shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        label: With its unit, as the head of a column.
        digits: After the point.
        scale: What a value is multiplied with to be shown.
        suffix: After the number.
    """

    label: str
    digits: int = 0
    scale: float = 1.0
    suffix: str = ""

    def text(self, value: float) -> str:
        """As it is shown."""
        return f"{value * self.scale:,.{self.digits}f}{self.suffix}"


FIGURES = {
    "cpu_us": Figure("CPU µs a request", 1),
    "requests_per_s": Figure("requests/s"),
    "core_used": Figure("of a core", 0, 100, " %"),
    "p50_us": Figure("p50 ms", 2, 0.001),
    "p99_us": Figure("p99 ms", 2, 0.001),
    "p999_us": Figure("p99.9 ms", 2, 0.001),
    "reached": Figure("answered of asked", 0, 100, " %"),
    "kib": Figure("KiB a connection", 1),
    "before_mib": Figure("MiB before", 1),
    "after_mib": Figure("MiB with them", 1),
    "change_ms": Figure("change, ms", 1),
    "slowest_ms": Figure("slowest, ms", 1),
    "abort_ms": Figure("abort, ms", 1),
    "faults": Figure("failed requests"),
    "messages_per_s": Figure("messages/s"),
}

COLUMNS: dict[str, dict[str, bool]] = {  # by kind: figures in order, and whether their ratios are shown
    "load": {"cpu_us": True, "requests_per_s": True, "core_used": False},
    "latency": {"p99_us": True, "p50_us": False, "p999_us": False, "reached": False, "cpu_us": False},
    "memory": {"kib": True, "before_mib": False, "after_mib": False},
    "change": {
        "change_ms": False,
        "slowest_ms": False,
        "abort_ms": False,
        "faults": False,
        "requests_per_s": False,
        "p99_us": False,
    },
    "echo": {"cpu_us": True, "messages_per_s": True, "p99_us": False},
}
