"""Where training starts from: first layers in the scale of the code vectors they read.

SigLIP's residual stream has a mean of several standard deviations in some directions, which a fresh linear layer passes
on to all of its outputs. Folding (v - mean) / deviation into the weights starts projector and depth transformer from
standardised inputs, without a layer that the published model lacks.

N images, P positions, Z code width.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vilau.errors import ConfigError


def check_whole(layers: list[nn.Linear]) -> None:
    """Raise ``ConfigError`` for layers whose weights are sharded."""
    if any(isinstance(layer.weight, DTensor) for layer in layers):
        raise ConfigError(
            "model.standardise_codes is true, which writes into weights that this strategy shards; "
            "write false, or trainer.strategy: ddp."
        )


@torch.no_grad()
def fold_statistics(vectors_NPZ: Tensor, layers: list[nn.Linear]) -> None:
    """Make ``layers`` compute of code vectors what they now compute of standardised ones.

    Mean and deviation of the Z entries are those of the code vectors of all ranks, which all must call this. Raises
    ``ConfigError`` where there are none.
    """
    device, width = vectors_NPZ.device, vectors_NPZ.shape[-1]
    vectors_MZ = vectors_NPZ.double().flatten(0, 1)
    count = torch.full((width,), float(len(vectors_MZ)), dtype=torch.float64, device=device)
    sums_3Z = torch.stack([count, vectors_MZ.sum(dim=0), vectors_MZ.square().sum(dim=0)])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums_3Z)
    count, total, squares = sums_3Z
    if not count[0]:
        raise ConfigError(
            "model.standardise_codes is true, but the first batch has no image to measure; write "
            "false, or a larger data.global_batch_size."
        )
    mean_Z = total / count
    deviation_Z = (squares / count - mean_Z.square()).clamp(min=1e-12).sqrt()
    for layer in layers:
        layer.weight.div_(deviation_Z.to(layer.weight.dtype))
        layer.bias.sub_(layer.weight @ mean_Z.to(layer.weight.dtype))
