"""`ResourceMetrics`: what was measured at one moment."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from omnimind.errors import InvalidInput
from omnimind.homeostasis.ladder import DEFAULT, ResourceState


class ResourceMetrics(msgspec.Struct, frozen=True):
    """One look at a machine, or at the cgroup that limits it.

    cpu_percent, memory_percent, disk_percent: 0 to 100; memory without reclaimable cache.
    memory_available_gb: in GiB. timestamp: Unix seconds. Raises InvalidInput for what is no such number.
    """

    cpu_percent: float
    memory_percent: float
    memory_available_gb: float
    disk_percent: float
    timestamp: float

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                msg = f"a measurement is a finite number, not {value!r}"
                raise InvalidInput(msg, field=name)
            if value < 0:
                msg = f"a measurement is not negative, as {value!r} is"
                raise InvalidInput(msg, field=name)

    def percents(self) -> dict[str, float]:
        """Return the percentages by resource, as a `Ladder` takes them."""
        return {"cpu": self.cpu_percent, "memory": self.memory_percent, "disk": self.disk_percent}

    def get_overall_state(self) -> ResourceState:
        """Return the state of the worst resource by the default thresholds, without hysteresis."""
        return max((DEFAULT.state(p) for p in self.percents().values()), key=lambda state: state.rank)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, the overall state among them."""
        return {**msgspec.structs.asdict(self), "state": self.get_overall_state().value}
