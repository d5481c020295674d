"""VARGPT's visual decoder: VAR's transformer, which predicts all codes of a scale at once (Tian et al. 2024).

B images, S scales of p x p cells, L cells of all scales, N those at hand, C decoder width, Z code width, V codes,
h heads, d head width. Scales are counted from 0, the coarsest.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import ConfigError, DataError
from vilau.layers.attention import KeyValueCache
from vilau.models.vargpt.config import DecoderConfig

NORM_EPS = 1e-6
LARGEST_SCALE = math.log(100)
"""Heads of normalised attention multiply what they compare by at most e to this."""


class ScaleAttention(nn.Module):
    """Multi-head self-attention whose keys have no bias.

    Normalised, as in VAR's code: queries and keys have length 1, and each head multiplies their product by a number
    that it learns, which starts at 4 and is at most 100.
    """

    def __init__(self, *, width: int, num_heads: int, normalised: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.empty(num_heads)) if normalised else None
        # A quarter of the usual, as published.
        self.product_scale = 1.0 if normalised else 0.25 * (width // num_heads) ** -0.5

    def forward(self, x_BNC: Tensor, mask_NN: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """Map ``(B, N, C)`` to ``(B, N, C)``; ``mask`` is true where a cell sees another, None: everywhere.

        With a cache the cells also see all that it holds, and are added to it.
        """
        q, k, v = (
            part(x_BNC).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # (B, h, N, d)
        if self.log_scale is not None:
            # In float32: what a head multiplies by 100 must not be rounded before.
            sharpness = self.log_scale.float().clamp(max=LARGEST_SCALE).exp()[:, None, None]
            q = (F.normalize(q.float(), dim=-1) * sharpness).to(v.dtype)
            k = F.normalize(k.float(), dim=-1).to(v.dtype)
        if cache is not None:
            k, v = cache.extend(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_NN, scale=self.product_scale)
        return self.out(y.transpose(1, 2).flatten(2))


class ScaleBlock(nn.Module):
    """Attention and an MLP, each scaled, shifted and gated by the condition (AdaLN, Peebles and Xie 2023)."""

    def __init__(self, config: DecoderConfig, *, drop_path: float) -> None:
        super().__init__()
        width = config.width
        self.drop_path = drop_path
        self.modulation = nn.Linear(width, 6 * width)
        self.attention = ScaleAttention(
            width=width, num_heads=config.num_heads, normalised=config.normalised_attention
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, config.mlp_ratio * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.mlp_ratio * width, width),
        )

    def forward(
        self,
        x_BNC: Tensor,
        condition_BC: Tensor,
        mask_NN: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Map ``(B, N, C)`` to ``(B, N, C)``; ``condition`` is ``(B, C)``, or ``(1, C)`` for all images."""
        told_B1C = self.modulation(F.silu(condition_BC))[:, None].chunk(6, dim=-1)
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = told_B1C
        y_BNC = self.attention(modulated(x_BNC, scale_1, shift_1), mask_NN, cache)
        x_BNC = x_BNC + self._kept(gate_1 * y_BNC)
        return x_BNC + self._kept(gate_2 * self.mlp(modulated(x_BNC, scale_2, shift_2)))

    def _kept(self, added_BNC: Tensor) -> Tensor:
        """Leave out what the block adds for some images in training; the others' makes up for it."""
        if not self.training or not self.drop_path:
            return added_BNC
        kept_B11 = added_BNC.new_empty(len(added_BNC), 1, 1).bernoulli_(1 - self.drop_path)
        return added_BNC * (kept_B11 / (1 - self.drop_path))


class ScaleDecoder(nn.Module):
    """Predicts the code of every cell from what coarser scales stand for at its place.

    ``embed`` makes the cells, and calling the decoder predicts their codes; VARGPT lets a language model work on the
    cells between the two, VAR does not. A cell sees all cells of its own and of coarser scales.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        scales: Sequence[int],
        codebook_size: int,
        code_width: int,
    ) -> None:
        """Take the sides of the grids, coarse first, and the tokenizer's number and width of codes."""
        super().__init__()
        width = config.width
        self.config = config
        self.scales = tuple(scales)
        self.ends = tuple(accumulate(side * side for side in self.scales))
        self.condition_embedding = nn.Embedding(config.num_conditions + 1, width)
        self.start = nn.Parameter(torch.empty(1, self.ends[0], width))
        self.code_projection = nn.Linear(code_width, width)
        self.level_embedding = nn.Embedding(len(self.scales), width)
        self.position_embedding = nn.Parameter(torch.empty(1, self.num_cells, width))
        last = max(1, config.num_layers - 1)
        self.blocks = nn.ModuleList(
            ScaleBlock(config, drop_path=config.drop_path * number / last)
            for number in range(config.num_layers)
        )
        self.out_modulation = nn.Linear(width, 2 * width)
        self.classifier = nn.Linear(width, codebook_size)
        self._initialise()

    @property
    def num_cells(self) -> int:
        """L, the cells of all scales."""
        return self.ends[-1]

    def condition(self, rows: Tensor) -> Tensor:
        """Return rows ``(B,)`` of the table of conditions: ``(B, C)``."""
        return self.condition_embedding(rows)

    def embed(self, maps: Tensor | None, condition: Tensor, *, first: int = 0) -> Tensor:
        """Return the cells ``(B, N, C)`` of whole scales from number ``first`` on, with their levels and positions.

        Args:
            maps: ``(B, M, Z)``, what coarser scales stand for at their places (``MultiScaleQuantizer.shown`` of all,
                ``shown_to`` of one). The cells of scale 0 have none but the condition: with ``first`` 0 they stand
                before the M others, and None makes them alone.
            condition: ``(B, C)``, or ``(1, C)`` for all images; only scale 0 is made of it.
            first: the scale to begin with; the maps are of this scale and as many behind it as they reach.

        Raises:
            DataError: the maps are of another width, or not of whole scales.
            ConfigError: there is no such scale.
        """
        begin = self._begin(first)
        parts = []
        if first == 0:
            num_images = len(condition) if maps is None else len(maps)
            parts.append((condition[:, None] + self.start).expand(num_images, -1, -1))
        if maps is not None:
            weight = self.code_projection.weight
            if maps.dim() != 3 or maps.shape[2] != weight.shape[1]:
                raise DataError(
                    f"maps have the shape {tuple(maps.shape)}; give (images, cells, {weight.shape[1]})."
                )
            parts.append(self.code_projection(maps.to(weight.dtype)))  # maps are float32
        end = begin + sum(part.shape[1] for part in parts)
        if end not in self.ends[first:]:
            given = 0 if maps is None else maps.shape[1]
            fitting = [one - max(begin, self.ends[0]) for one in self.ends[first:]]
            raise DataError(
                f"maps have {given} cells; give those of whole scales from scale {first} on: {_any_of(fitting)}."
            )
        levels_N = self._levels()[begin:end]
        places_1NC = self.level_embedding(levels_N) + self.position_embedding[:, begin:end]
        return torch.cat(parts, dim=1) + places_1NC

    def forward(
        self, x: Tensor, condition: Tensor, caches: Sequence[KeyValueCache] | None = None
    ) -> Tensor:
        """Return float32 logits ``(B, N, V)`` of the codes of cells ``(B, N, C)``, each at its own place.

        Args:
            x: the cells of all scales or of the first ones; with caches those of the next scale alone.
            condition: ``(B, C)``, or ``(1, C)`` for all images.
            caches: one for each block, new ones before the first scale.

        Raises:
            DataError: the cells are not those of whole scales, or with caches not of the next.
        """
        mask_NN = None
        if caches is None:
            mask_NN = self._mask(x)
        else:
            self._check_next(x, caches)
        # The residual stream is in the number format of the weights, whatever autocast made of the cells before.
        x_BNC, condition_BC = x.to(self.start.dtype), condition.to(self.start.dtype)
        each = [None] * len(self.blocks) if caches is None else caches
        for block, cache in zip(self.blocks, each, strict=True):
            x_BNC = block(x_BNC, condition_BC, mask_NN, cache)
        with torch.autocast(x_BNC.device.type, enabled=False):
            told_B1C = self.out_modulation(F.silu(condition_BC))[:, None].float()
            y_BNC = modulated(x_BNC.float(), *told_B1C.chunk(2, dim=-1))
            return self.classifier(y_BNC.to(self.classifier.weight.dtype)).float()

    def _mask(self, x_BNC: Tensor) -> Tensor | None:
        """Which cells see which: those of their own and of coarser scales. One scale needs no mask.

        Made anew each time, it cannot be lost where a model is built without values.
        """
        num_cells = x_BNC.shape[1]
        if num_cells not in self.ends:
            raise DataError(
                f"the decoder is given {num_cells} cells; give those of the first scales, whole: {_any_of(self.ends)}."
            )
        if num_cells == self.ends[0]:
            return None
        levels_N = self._levels()[:num_cells]
        return levels_N[:, None] >= levels_N

    def _check_next(self, x_BNC: Tensor, caches: Sequence[KeyValueCache]) -> None:
        keys = caches[0].keys
        seen, given = (0 if keys is None else keys.shape[2]), x_BNC.shape[1]
        left = [end - seen for end in self.ends if end > seen]
        if not left:
            raise DataError(
                f"the caches hold all {seen} cells of an image; give new ones for the next image."
            )
        if given != left[0]:
            raise DataError(
                f"the decoder is given {given} cells after {seen}; give the {left[0]} of the next scale."
            )

    def _begin(self, first: int) -> int:
        """Where a scale begins among the cells of all."""
        if not 0 <= first < len(self.scales):
            raise ConfigError(
                f"first is {first}; write a scale from 0 to {len(self.scales) - 1}, the finest."
            )
        return self.ends[first] - self.scales[first] ** 2

    def _levels(self) -> Tensor:
        """Scale of each cell, ``(L,)``."""
        sides, device = enumerate(self.scales), self.start.device
        return torch.cat([torch.full((side * side,), n, device=device) for n, side in sides])

    def _initialise(self) -> None:
        """Start as VAR does: weights and tables alike, then some of them smaller."""
        width = self.config.width
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("log_scale"):
                nn.init.constant_(parameter, math.log(4))
            else:
                nn.init.trunc_normal_(parameter, std=(3 * width) ** -0.5)
        with torch.no_grad():
            self.classifier.weight.mul_(0.02)
            self.out_modulation.weight.mul_(0.5)
            for name, parameter in self.blocks.named_parameters():
                if name.endswith("modulation.weight"):
                    parameter[: 2 * width].mul_(self.config.gate_init)
                    parameter[2 * width :].mul_(0.5)
                if name.endswith(("attention.out.weight", "mlp.2.weight")):
                    parameter.div_(math.sqrt(2 * len(self.blocks)))


def modulated(x_BNC: Tensor, scale_B1C: Tensor, shift_B1C: Tensor) -> Tensor:
    """Normalise ``(B, N, C)``, then scale and shift it by what a condition told, ``(B, 1, C)`` each."""
    return F.layer_norm(x_BNC, x_BNC.shape[-1:], eps=NORM_EPS) * (1 + scale_B1C) + shift_B1C


def _any_of(counts: Sequence[int]) -> str:
    first, *others = map(str, counts)
    return f"{', '.join([first, *others[:-1]])} or {others[-1]}" if others else first
