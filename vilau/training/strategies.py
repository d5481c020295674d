"""Sharding for training on several devices (FSDP2 through Lightning's ModelParallelStrategy)."""

from collections.abc import Sequence

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from vilau.errors import ConfigError
from vilau.layers.multiscale import MultiScaleQuantizer
from vilau.layers.quantize import ResidualQuantizer

QUANTIZERS = (ResidualQuantizer, MultiScaleQuantizer)
ENTRY_POINTS = (
    "training_step", "validation_step", "test_step", "predict_step",
    "image_features", "text_features", "reconstruct_by_part", "draw", "answer", "compared_losses", "measure",
)  # fmt: skip
"""How Lightning and callbacks enter a module: FSDP gathers its weights when one of these begins."""


def shard_module(root: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh) -> None:
    """Shard each block, then everything else in ``root``, over ``mesh``.

    A block's weights are gathered while it runs; those of the rest stay from the beginning of an entry
    point to the end of its backward pass. So inside an entry point any method of any part may be called.
    Raises ``ConfigError`` for a codebook that training overwrites: what is written into a gathered weight is lost.
    """
    if any(isinstance(m, QUANTIZERS) and m.overwrites_parameters for m in root.modules()):
        raise ConfigError(
            "codes learn by gradient, whose restarts and start from data need whole weights, and this strategy shards "
            "them; write restart_unused_codes: false and initialisation: normal under quantizer (of a tower) or "
            "tokenizer, or trainer.strategy: ddp."
        )
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for name in ENTRY_POINTS:
        if hasattr(root, name):
            register_fsdp_forward_method(root, name)
