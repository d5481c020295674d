"""What a stage costs before it is run: parameters, operations, memory, disk, hours. Free of torch."""

from vilau.costs.show import shown
from vilau.costs.stage import estimate

__all__ = ["estimate", "shown"]
