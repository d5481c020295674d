"""How VARGPT draws: prompt, then scale after scale, all cells of one at once (VARGPT, section 3.2; reference A3.4).

B results, N rows of the language model, S scales of p x p cells, P cells of all, E language-model width, V codes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from vilau.errors import ConfigError
from vilau.generation.guidance import Guidance, guide
from vilau.generation.sampling import Choose, image_seed, row_uniforms
from vilau.layers.attention import KeyValueCache
from vilau.models.causal.backbone import CachedBackbone, check_length
from vilau.models.causal.given import checked_codes
from vilau.models.causal.parts import Parts
from vilau.models.finite import FiniteLogits
from vilau.models.interface import Progress
from vilau.models.sequence.prompts import IMAGE_START
from vilau.models.vargpt.decoder import ScaleDecoder
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE


class ScaleDrawer(Parts, Protocol):
    """A model that draws all cells of a scale from the states at their own places."""

    decoder: ScaleDecoder
    unconditional: str

    @property
    def tokenizer(self) -> MultiScaleVQVAE:
        """What makes codes of images."""
        ...

    def cells(self, maps: Tensor | None, *, first: int = 0) -> Tensor:
        """Inputs ``(B, p * p, E)`` of the cells of a scale."""
        ...

    def code_logits(self, hidden_nPE: Tensor, **caches: Any) -> Tensor:
        """Logits ``(N, p * p, V)`` of the codes at the cells."""
        ...


def draw_scales(  # noqa: PLR0913 - what a drawing depends on
    model: ScaleDrawer,
    prompts: Sequence[str],
    *,
    num_images: int,
    guidance: Guidance,
    choose: Sequence[Choose],
    seeds: Sequence[int],
    negative_prompt: str | None = None,
    given_codes: Tensor | None = None,
    start: str = IMAGE_START,
    progress: Progress | None = None,
) -> Tensor:
    """Draw codes ``(B, num_images * P, 1)``, one row per prompt, after the token ``start``.

    Guidance goes from scale to scale: a ramp reaches its end at the finest one of the last image. Each row whose scale
    of guidance is ever another than 1 has a second one: the language model's states after the negative prompt, or noise
    of its own seed in their place. Results are those of ``CausalModel.draw_codes``; so are its errors, and
    ``ConfigError`` for a negative prompt where noise takes its place.
    """
    if negative_prompt and negative_prompt.strip() and model.unconditional == "noise":
        raise ConfigError(
            f"negative_prompt is {negative_prompt!r}, but this model's guidance moves away from noise, which no words "
            "change; leave it out, or take a model whose unconditional is prompt."
        )
    B, P = len(prompts), model.tokenizer.spec.num_positions
    if given_codes is not None:
        given_codes = checked_codes(model, given_codes, B, num_images * P)
    sides = [side for side, _ in model.tokenizer.spec.levels]
    scales_BS = guidance.schedule(B, num_images * len(sides)).to(model.device)
    guided_G = (scales_BS != 1.0).any(dim=1).nonzero()[:, 0]
    rows = _Rows(model, prompts, guided_G, negative_prompt or "", start, num_images * P, seeds)
    uniforms = row_uniforms(seeds, num_images * P, model.device)
    finite, drawn = FiniteLogits(), list[Tensor]()
    done = 0
    for image in range(num_images):
        caches = [KeyValueCache() for _ in model.decoder.blocks]
        total: Tensor | None = None
        for number, side in enumerate(sides):
            maps = None if total is None else model.tokenizer.shown_to(total, number)
            hidden = rows.states(model.cells(maps, first=number).expand(B, -1, -1))
            logits = finite(model.code_logits(hidden, caches=caches))
            logits_BnV, free_GnV = logits.split((B, len(guided_G)))
            if len(guided_G):
                scale_G11 = scales_BS[guided_G, image * len(sides) + number, None, None]
                guided = guide(logits_BnV[guided_G], free_GnV, scale_G11)
                logits_BnV = logits_BnV.index_copy(0, guided_G, guided)
            end = done + side * side
            chosen = choose[0](logits_BnV.flatten(0, 1), uniforms[:, done:end].flatten())
            codes_Bn1 = chosen.view(B, -1, 1)
            if given_codes is not None and (kept := given_codes[:, done:end]).shape[1]:
                codes_Bn1 = torch.cat([kept, codes_Bn1[:, kept.shape[1] :]], dim=1)
            total = model.tokenizer.grown(total, codes_Bn1, number)
            drawn.append(codes_Bn1)
            done = end
            if progress is not None:
                progress(done, num_images * P)
    finite.check()
    return torch.cat(drawn, dim=1)


class _Rows:
    """The language model's rows: one for each result, and one for each that is guided unless noise takes its place."""

    def __init__(
        self,
        model: ScaleDrawer,
        prompts: Sequence[str],
        guided_G: Tensor,
        negative_prompt: str,
        start: str,
        num_cells: int,
        seeds: Sequence[int],
    ) -> None:
        self.guided_G = guided_G
        self.noise: list[torch.Generator] | None = None
        null = model.sequence.prompt.null_words
        texts = [text if text.strip() else null for text in [*prompts, negative_prompt]]
        rows = texts[:-1]
        if model.unconditional == "noise":
            # Not the seeds themselves: codes are drawn at the numbers of these.
            own = [image_seed(seeds[n], 0) for n in guided_G.tolist()]
            self.noise = [torch.Generator().manual_seed(seed) for seed in own]
        else:
            rows = [*rows, *texts[-1:] * len(guided_G)]
        unique = list(dict.fromkeys(rows))
        layout = model.sequence.drawing_prompts(unique, start=start).to(model.device)
        check_length(model, layout, num_cells, unique)
        which = [unique.index(text) for text in rows]
        self.backbone = CachedBackbone(model.language, layout.mask, which)
        self.backbone(model.language.get_input_embeddings()(layout.ids))

    def states(self, inputs_BnE: Tensor) -> Tensor:
        """States ``(B + G, n, E)`` at new cells, those that are guided away from last."""
        if self.noise is None:
            return self.backbone.states(torch.cat([inputs_BnE, inputs_BnE[self.guided_G]]))
        hidden = self.backbone.states(inputs_BnE)
        if not self.noise:
            return hidden
        shape = hidden.shape[1:]
        noise = torch.stack([torch.randn(shape, generator=one) for one in self.noise])
        return torch.cat([hidden, noise.to(hidden)])
