"""What a stage costs before it is run: parameters, operations, memory, disk, hours."""

from vilau.costs.stage import estimate

__all__ = ["estimate"]
