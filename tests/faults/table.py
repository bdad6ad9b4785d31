"""Every fault by its id."""

from __future__ import annotations

from tests.faults import control, steering, upstreams
from tests.faults.run import Fault

FAULTS: dict[str, Fault] = dict(sorted((upstreams.FAULTS | control.FAULTS | steering.FAULTS).items()))
