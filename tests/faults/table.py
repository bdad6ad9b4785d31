"""Every fault by its id."""

from __future__ import annotations

from tests.faults import control, machine, steering, upstreams
from tests.faults.run import Fault

FAULTS: dict[str, Fault] = dict(sorted((upstreams.FAULTS | control.FAULTS | steering.FAULTS | machine.FAULTS).items()))
