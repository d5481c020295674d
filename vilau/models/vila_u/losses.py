"""The next-token losses of VILA-U: text and codes (section 3.2, eq. 3-4; reference 3.4).

B rows, T tokens, N images, n drawn images, P positions, D residual depth, Z code width, E language-model width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vilau.layers.pixels import to_float
from vilau.models.interface import LossTerms
from vilau.models.vila_u.parts import Parts, embedded
from vilau.models.vila_u.sequence import Layout
from vilau.types import MultimodalBatch


def cross_entropies(model: Parts, batch: MultimodalBatch) -> LossTerms:
    """Return the ``text`` and ``visual`` cross entropies over the targets of a batch."""
    layout = model.sequence.lay_out(batch.documents).to(model.device)
    codes_NPD, vectors_NPZ = _tokenized(model, batch.images)
    # Right padding lies after every real token, so the causal mask alone keeps it out.
    inputs_BTE = embedded(model, layout, vectors_NPZ)
    hidden_BTE = model.language.model(inputs_embeds=inputs_BTE, use_cache=False).last_hidden_state
    terms = LossTerms(dropped=layout.dropped)
    _add_text(terms, model, layout, hidden_BTE)
    _add_visual(terms, model, layout, hidden_BTE, codes_NPD)
    return terms


@torch.no_grad()
def _tokenized(model: Parts, images: Tensor) -> tuple[Tensor, Tensor]:
    if not len(images):  # transformers' attention cannot reshape an empty batch
        codes_NPD = images.new_zeros(
            0, model.sequence.num_positions, model.head.depth, dtype=torch.int64
        )
        return codes_NPD, model.tokenizer.embed(codes_NPD)
    pixels = images if images.is_floating_point() else to_float(images)
    quantized = model.tokenizer.quantize(pixels)
    return quantized.codes, quantized.features


def _add_text(terms: LossTerms, model: Parts, layout: Layout, hidden_BTE: Tensor) -> None:
    # Nothing stands before the first token of a row, so nothing predicts it.
    rows, columns = layout.targets[:, 1:].nonzero(as_tuple=True)
    logits = model.language.get_output_embeddings()(hidden_BTE[rows, columns])
    loss = F.cross_entropy(logits.float(), layout.ids[rows, columns + 1], reduction="sum")
    terms.add("text", loss, len(rows))


def _add_visual(
    terms: LossTerms, model: Parts, layout: Layout, hidden_BTE: Tensor, codes_NPD: Tensor
) -> None:
    chosen = layout.span_targets
    if not chosen.any():  # one made-up position that weighs nothing, for the head's weights
        codes = codes_NPD.new_zeros(1, 1, model.head.depth)
        terms.add("visual", 0.0 * model.head(hidden_BTE[:1, :1], codes).float().sum(), 0)
        return
    # The state at what stands before an image predicts its first position, position p the next.
    places = torch.arange(model.sequence.num_positions, device=hidden_BTE.device)
    columns_nP = layout.span_starts[chosen, None] - 1 + places
    codes_nPD = codes_NPD[layout.span_images[chosen]]
    logits = model.head(hidden_BTE[layout.span_rows[chosen, None], columns_nP], codes_nPD)
    loss = F.cross_entropy(logits.float().flatten(0, 2), codes_nPD.flatten(), reduction="sum")
    terms.add("visual", loss, codes_nPD.numel())
