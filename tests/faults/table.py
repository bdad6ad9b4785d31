"""Every fault by its id."""

from __future__ import annotations

from tests.faults import certificates, cluster, control, life, machine, names, poison, renewal, steering, upstreams
from tests.faults.run import Fault

_MODULES = (certificates, cluster, control, life, machine, names, poison, renewal, steering, upstreams)
FAULTS: dict[str, Fault] = dict(sorted(item for module in _MODULES for item in module.FAULTS.items()))
