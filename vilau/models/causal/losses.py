"""Next-token losses over text and codes (VILA-U section 3.2, eq. 3-4; Liquid section 3.3).

B rows, T tokens, N images, n drawn images, P positions, D residual depth, E language-model width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vilau.errors import DataError
from vilau.layers.attention import LEAN
from vilau.layers.isolation import WITH_MASK, isolating_arguments
from vilau.layers.lean import product_dtype
from vilau.layers.ranks import many_ranks
from vilau.models.causal.parts import Parts
from vilau.models.finite import FiniteLogits
from vilau.models.interface import LossTerms
from vilau.models.sequence.rows import Layout
from vilau.types import MultimodalBatch


def cross_entropies(
    model: Parts,
    batch: MultimodalBatch,
    *,
    packing: bool = False,
    length_groups: int = 1,
    share_images: bool = False,
) -> LossTerms:
    """Return the ``text`` and ``visual`` cross entropies over the targets of a batch.

    The same numbers come with less work: with ``packing`` documents share rows and do not see one another; with
    ``length_groups`` rows of similar length go through the language model together; with ``share_images`` documents
    that begin with the same images go on from one reading of them.
    """
    layouts = model.sequence.lay_out_in(
        length_groups, batch.documents, packing=packing, share_images=share_images
    )
    for layout in layouts:
        _check_images(layout, batch.num_images)
    if many_ranks():
        # Where blocks are sharded, each pass waits for the other ranks': one with fewer rows than groups makes as many
        # passes as they do, over a word that weighs nothing.
        layouts += model.sequence.lay_out_in(1, []) * (length_groups - len(layouts))
    seen = model.see(batch.images, batch.codes)
    terms = LossTerms(dropped=layouts[0].dropped, cut=layouts[0].cut)
    for layout in layouts:
        here = layout.to(model.device)
        hidden_BTE = _states(model, here, model.embedded(here, seen))
        _add_text(terms, model, here, hidden_BTE)
        _add_visual(terms, model, here, hidden_BTE, seen)
    return terms


@torch.no_grad()
def text_log_likelihoods(model: Parts, batch: MultimodalBatch) -> Tensor:
    """Mean log-probability of the last answer of each document, its end included, float32 ``(documents,)``.

    All documents begin with the same images, or none has any; these are read once where the attention kernel takes a
    mask. Raises ``DataError`` for a document that is too long, ``CheckpointError`` when the logits are no numbers.
    """
    shared = model.language.model.config._attn_implementation in WITH_MASK
    (layout,) = model.sequence.lay_out_in(1, batch.documents, share_images=shared)
    _check_images(layout, batch.num_images)
    seen = model.see(batch.images, batch.codes)
    if layout.dropped or layout.cut:
        raise DataError(
            "a text to be weighed does not fit the language model's max_length of "
            f"{model.sequence.max_length} with what stands before it; shorten its question, or leave it out."
        )
    here = layout.to(model.device)
    owners = _last_answers(here)
    weighed = owners >= 0
    owners, rows, columns = owners[weighed], here.text_rows[weighed], here.text_columns[weighed]
    hidden_BTE = _states(model, here, model.embedded(here, seen))
    finite = FiniteLogits()
    logits = finite(model.language.get_output_embeddings()(hidden_BTE[rows, columns - 1]))
    finite.check()
    loss = F.cross_entropy(logits.float(), here.ids[rows, columns], reduction="none")
    counts = owners.bincount(minlength=len(batch.documents))
    return -loss.new_zeros(len(counts)).index_add_(0, owners, loss) / counts


def _last_answers(layout: Layout) -> Tensor:
    """The document of each text token that bears loss, int64 ``(t,)``; -1 before a document's last run of such tokens.

    Documents are counted through the rows, which keep the order of those of one beginning.
    """
    places, columns = layout.text_rows * layout.ids.shape[1], layout.text_columns
    if layout.documents is not None:
        places = places + layout.documents[layout.text_rows, columns]
    _, owners = places.unique_consecutive(return_inverse=True)
    follows = torch.zeros_like(owners)
    follows[1:] = ((owners[1:] == owners[:-1]) & (columns[1:] == columns[:-1] + 1)).long()
    runs = (1 - follows).cumsum(0)
    last = runs.new_zeros(len(owners)).scatter_reduce(0, owners, runs, "amax")
    return torch.where(runs == last[owners], owners, -1)


def _check_images(layout: Layout, count: int) -> None:
    images = layout.span_images
    if len(images) and not 0 <= int(images.min()) <= int(images.max()) < count:
        wrong = next(i for i in images.tolist() if not 0 <= i < count)
        raise DataError(
            f"a document refers to image {wrong} of its batch, which holds {count}; give one image for each index "
            "from 0 on."
        )


def _states(model: Parts, layout: Layout, inputs_BTE: Tensor) -> Tensor:
    """Last states ``(B, T, E)`` of the language model; what stands in padding means nothing."""
    body = model.language.model
    attention = str(body.config._attn_implementation)
    lean, dtype = {}, inputs_BTE.dtype
    if (
        attention == LEAN
    ):  # blocks of ours need not compute what no loss reads, and take the mask as their products do
        lean, dtype = {"wanted": _sources(layout)}, product_dtype(inputs_BTE)
    if layout.documents is None or layout.positions is None:
        # Right padding lies after every real token, so the causal mask alone keeps it out.
        return body(inputs_embeds=inputs_BTE, use_cache=False, **lean).last_hidden_state
    arguments = lean | isolating_arguments(
        attention, layout.documents, dtype=dtype, prefixes_BT=layout.prefixes
    )
    positions_BT = layout.positions
    flat = "attention_mask" not in arguments
    if flat:  # kernels that are told where documents begin read all rows as one
        inputs_BTE, positions_BT = inputs_BTE.flatten(0, 1)[None], positions_BT.flatten()[None]
    hidden = body(
        inputs_embeds=inputs_BTE, position_ids=positions_BT, use_cache=False, **arguments
    ).last_hidden_state
    return hidden.view(*layout.ids.shape, -1) if flat else hidden


def _sources(layout: Layout) -> Tensor:
    """Places, counted through all rows, of the states that predict what bears loss."""
    T = layout.ids.shape[1]
    drawn = layout.span_targets
    places_nP = layout.span_rows[drawn, None] * T + layout.span_sources[drawn]
    return torch.cat([layout.text_rows * T + layout.text_columns - 1, places_nP.flatten()])


def _add_text(terms: LossTerms, model: Parts, layout: Layout, hidden_BTE: Tensor) -> None:
    rows, columns = layout.text_rows, layout.text_columns
    logits = model.language.get_output_embeddings()(hidden_BTE[rows, columns - 1])
    loss = F.cross_entropy(logits.float(), layout.ids[rows, columns], reduction="sum")
    terms.add("text", loss, len(rows))


def _add_visual(
    terms: LossTerms, model: Parts, layout: Layout, hidden_BTE: Tensor, seen: Any
) -> None:
    chosen = layout.span_targets
    if not chosen.any():  # one made-up position that weighs nothing, for the head's weights
        codes = layout.ids.new_zeros(1, 1, model.tokenizer.spec.depth)
        terms.add("visual", 0.0 * model.visual_loss(hidden_BTE[:1, :1], codes), 0)
        return
    codes_nPD = model.codes_of(seen, layout.span_images[chosen])
    sources_nPE = hidden_BTE[layout.span_rows[chosen, None], layout.span_sources[chosen]]
    terms.add("visual", model.visual_loss(sources_nPE, codes_nPD), codes_nPD.numel())
