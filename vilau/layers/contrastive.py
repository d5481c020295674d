"""Image-text contrastive losses.

B images and texts, C feature width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_contrastive_loss(
    image_BC: Tensor,
    text_BC: Tensor,
    *,
    logit_scale: Tensor,
    logit_bias: Tensor,
    matches_BB: Tensor | None = None,
) -> Tensor:
    """SigLIP's loss (Zhai et al. 2023, eq. 1) on normalised features: a scalar.

    - sum_ij log sigmoid(y_ij (exp(s) f_i.g_j + b)) / B, with y_ij = +1 where text j is true of image i
    (``matches_BB``; default: only the diagonal) and -1 elsewhere. Where several images of a batch share a
    true caption, calling those pairs negative teaches the opposite of the truth.
    """
    logits_BB = logit_scale.exp() * image_BC @ text_BC.t() + logit_bias
    if matches_BB is None:
        matches_BB = torch.eye(len(logits_BB), dtype=torch.bool, device=logits_BB.device)
    signs_BB = matches_BB.to(logits_BB.dtype) * 2 - 1
    return -F.logsigmoid(signs_BB * logits_BB).sum() / len(logits_BB)
