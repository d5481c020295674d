"""Attention that keeps the documents of a packed row apart, for transformers models.

B rows, T tokens of a row, d documents.
"""

from typing import Any

import torch
from torch import Tensor

from vilau.errors import ConfigError

WITH_MASK = ("sdpa", "eager", "lean")
"""Kernels that take any mask; only sdpa's may be boolean."""
WITH_LENGTHS = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Kernels that take the places where documents begin."""


def check_sharing(attention: str) -> None:
    """Raise ``ConfigError`` for a kernel that cannot let several documents go on from one beginning."""
    if attention not in WITH_MASK:
        raise ConfigError(
            f"model.share_images is true, but language.attention {attention} takes no mask, which documents that "
            f"share their images need; write {', '.join(WITH_MASK)}, or share_images: false."
        )


def check_isolating(attention: str) -> None:
    """Raise ``ConfigError`` for a kernel that cannot keep documents apart."""
    if attention not in (*WITH_MASK, *WITH_LENGTHS):
        raise ConfigError(
            f"model.packing is true, but with language.attention {attention} the documents of a row would see one "
            f"another; write {', '.join(WITH_MASK)} or {WITH_LENGTHS[0]}, or packing: false."
        )


def isolating_arguments(
    attention: str,
    documents_BT: Tensor,
    *,
    dtype: torch.dtype,
    prefixes_BT: Tensor | None = None,
) -> dict[str, Any]:
    """Return what a transformers model's forward needs, so that a token sees its own document's past alone.

    ``documents`` numbers the documents of each row, int64 ``(B, T)``, in order; ``prefixes`` tells for every token the
    document that its own goes on from, itself where it begins (None: all begin). For kernels that take a mask:
    ``attention_mask`` ``(B, 1, T, T)``; for the others the places where documents begin, counted over all rows
    one after another (the model then reads them as one row). ``dtype`` is that of the hidden states.

    Raises ``ConfigError`` for any other kernel, and for one without a mask where documents go on from others.
    """
    check_isolating(attention)
    if prefixes_BT is not None:
        check_sharing(attention)
    if attention in WITH_LENGTHS:
        return _lengths(documents_BT)
    seen = block_causal_mask(documents_BT, prefixes_BT)[:, None]
    if attention == "sdpa":
        return {"attention_mask": seen}
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=seen.device)
    return {"attention_mask": torch.where(seen, torch.zeros_like(hidden), hidden)}


def block_causal_mask(documents_BT: Tensor, prefixes_BT: Tensor | None = None) -> Tensor:
    """Bool ``(B, T, T)``: entry [b, q, k] says that token q of row b sees token k."""
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    mine = documents_BT[:, :, None] == documents_BT[:, None, :]
    if prefixes_BT is not None:
        mine |= prefixes_BT[:, :, None] == documents_BT[:, None, :]
    return causal_TT & mine


def _lengths(documents_BT: Tensor) -> dict[str, Any]:
    T = documents_BT.shape[1]
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts_d = begins_BT.flatten().nonzero()[:, 0]
    bounds = torch.cat([starts_d, starts_d.new_tensor([documents_BT.numel()])])
    longest = int(bounds.diff().max())
    assert longest <= T  # the first token of a row begins a document
    bounds = bounds.to(torch.int32)
    return {
        "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds,
        "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip
