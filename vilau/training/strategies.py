"""Sharding for training on several devices (FSDP2 through Lightning's ModelParallelStrategy)."""

from collections.abc import Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

ENTRY_POINTS = (
    "training_step", "validation_step", "test_step", "predict_step",
    "text_features", "reconstruct_by_depth", "draw", "answer", "compared_losses",
)  # fmt: skip
"""How Lightning and callbacks enter a module: FSDP gathers its weights when one of these begins."""


def shard_module(root: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Shard each block, then everything else in ``root``, over ``mesh``.

    A block's weights are gathered while it runs; those of the rest stay from the beginning of an entry
    point to the end of its backward pass. So inside an entry point any method of any part may be called.
    """
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for name in ENTRY_POINTS:
        if hasattr(root, name):
            register_fsdp_forward_method(root, name)
