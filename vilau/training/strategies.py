"""Sharding for training on several devices (FSDP2 through Lightning's ModelParallelStrategy)."""

from collections.abc import Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard


def shard_blocks(root: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Shard each block, then what is left of ``root``, over ``mesh``."""
    for block in blocks:
        fully_shard(block, mesh=mesh)
    for child in root.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
