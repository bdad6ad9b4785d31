"""Every fault by its id."""

from __future__ import annotations

from tests.faults import upstreams
from tests.faults.run import Fault

FAULTS: dict[str, Fault] = dict(sorted(upstreams.FAULTS.items()))
