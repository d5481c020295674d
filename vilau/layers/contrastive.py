"""Image-text contrastive losses, over the batch of one process or of all.

B images and texts of this process, T texts (its own or those of all processes), C feature width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from vilau.layers.ranks import GlobalRows


def sigmoid_contrastive_loss(
    image_BC: Tensor,
    text_TC: Tensor,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor,
    matches_BB: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss (Zhai et al. 2023, eq. 1) on normalised features: a scalar.

    - sum_ij log sigmoid(y_ij (exp(s) f_i.g_j + b)) / B, with y_ij = +1 where text j is true of image i
    (``matches_BB``, or ``(B, T)``; default: only the diagonal) and -1 elsewhere. Where several images of a batch
    share a true caption, calling those pairs negative teaches the opposite of the truth.
    """
    logits_BT = _cosines(image_BC, text_TC) * logit_scale.float().exp() + logit_bias.float()
    if matches_BB is None:
        matches_BB = torch.eye(len(logits_BT), dtype=torch.bool, device=logits_BT.device)
    signs_BT = matches_BB.to(logits_BT.dtype) * 2 - 1
    return -F.logsigmoid(signs_BT * logits_BT).sum() / len(logits_BT)


def softmax_contrastive_loss(
    image_BC: Tensor,
    text_BC: Tensor,
    *,
    logit_scale: Tensor,
    matches_BB: Tensor | None = None,
    own: slice = slice(None),
) -> Tensor:
    """CLIP's loss (Radford et al. 2021, fig. 3) on normalised features: a scalar.

    Cross entropy of exp(s) f_i.g_j over the texts of an image and over the images of a text, halved. Where
    several are true of one (``matches_BB``; default: only the diagonal), the target is shared between them
    equally (Yang et al. 2022, UniCL). ``own``: the images and texts to average over; the others are negatives.
    """
    logits_BB = _cosines(image_BC, text_BC) * logit_scale.float().exp()
    if matches_BB is None:
        matches_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    target_BB = matches_BB.to(logits_BB.dtype)
    to_text = F.cross_entropy(logits_BB[own], _shared(target_BB[own]))
    to_image = F.cross_entropy(logits_BB.t()[own], _shared(target_BB.t()[own]))
    return 0.5 * (to_text + to_image)


def _cosines(image_BC: Tensor, text_TC: Tensor) -> Tensor:
    """Products of normalised features in float32: times a scale near 100, bfloat16's would be off by a quarter."""
    with torch.autocast(image_BC.device.type, enabled=False):
        return image_BC.float() @ text_TC.float().t()


def _shared(target: Tensor) -> Tensor:
    return target / target.sum(dim=1, keepdim=True)


# ---------------------------------------------------------------------- over all processes


def sigmoid_loss_over_ranks(
    image_BC: Tensor,
    text_BC: Tensor,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor,
    matches: Callable[[GlobalRows], Tensor],
) -> Tensor:
    """This process's share of ``sigmoid_contrastive_loss`` on the batch of all processes.

    Its images are compared with the texts of all. The shares' mean over processes, and the mean of their gradients
    as data parallelism takes it, are those of one process with the whole batch, whose rows may be dealt
    out unevenly. ``matches`` gives the rows of this process's images, ``(B, T)``. Every process must call it.
    """
    where = GlobalRows.of(len(image_BC), image_BC.device)
    loss = sigmoid_contrastive_loss(
        image_BC,
        gather_rows(text_BC, where),
        logit_scale=logit_scale,
        logit_bias=logit_bias,
        matches_BB=matches(where),
    )
    return loss * _share(len(image_BC), where)


def softmax_loss_over_ranks(
    image_BC: Tensor,
    text_BC: Tensor,
    *,
    logit_scale: Tensor,
    matches: Callable[[GlobalRows], Tensor],
) -> Tensor:
    """This process's share of ``softmax_contrastive_loss``; see ``sigmoid_loss_over_ranks``."""
    where = GlobalRows.of(len(image_BC), image_BC.device)
    loss = softmax_contrastive_loss(
        gather_rows(image_BC, where),
        gather_rows(text_BC, where),
        logit_scale=logit_scale,
        matches_BB=gather_rows(matches(where).float(), where) > 0,
        own=slice(where.start, where.start + len(image_BC)),
    )
    return loss * _share(len(image_BC), where)


def _share(count: int, where: GlobalRows) -> float:
    return 1.0 if where.alone else count * dist.get_world_size() / where.total


def diagonal(count: int, where: GlobalRows, device: torch.device) -> Tensor:
    """Return bool ``(count, where.total)``: the text of each image is its own."""
    columns = torch.arange(where.total, device=device)
    return columns == torch.arange(count, device=device)[:, None] + where.start


def gather_rows(rows_BC: Tensor, where: GlobalRows) -> Tensor:
    """Rows of all processes, ``(T, C)``, in order; gradients flow back to the process that gave a row."""
    if where.alone:
        return rows_BC
    return _Gather.apply(rows_BC, where.start, where.total)


class _Gather(torch.autograd.Function):
    """Every process writes its rows into zeros, and a sum over processes puts them together.

    One message whatever the number of rows of each; adding zeros changes no value.
    """

    @staticmethod
    def forward(ctx: Any, rows_BC: Tensor, start: int, total: int) -> Tensor:
        ctx.start, ctx.count = start, len(rows_BC)
        all_TC = rows_BC.new_zeros(total, rows_BC.shape[1])
        all_TC[start : start + len(rows_BC)] = rows_BC
        dist.all_reduce(all_TC)
        return all_TC

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        slope_TC = slopes[0].contiguous().clone()
        dist.all_reduce(slope_TC)
        return slope_TC[ctx.start : ctx.start + ctx.count], None, None
