"""Residual vector quantisation (Lee et al. 2022; VILA-U section 3.1).

B images, P positions, N = B * P vectors, Z code width, D residual depth, K codebook size.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.layers.code_entropy import code_entropy
from vilau.layers.codebook import Codebook, EmaCodebook, GradientCodebook, update_codebooks
from vilau.layers.gram import GramSearch
from vilau.layers.nearest import full_float32, nearest, nearest_as_published
from vilau.layers.parts import Parts, Step
from vilau.layers.quantized import Quantized, mean_square
from vilau.layers.ranks import GlobalRows


class ResidualQuantizer(nn.Module):
    """Quantise a vector as a sum of D codes, each coding what is left.

    r_0 = x;  k_d = argmin_j |r_{d-1} - e_j|^2;  r_d = r_{d-1} - e_{k_d}   (VILA-U eq. 1).

    Args:
        depth: D.
        codebook_size: K, the codes of one codebook.
        width: Z.
        decay: of the averages that codes follow and that unused codes are known by.
        restart_unused_codes: see ``Codebook``.
        search: ``float32`` searches and sums in float32 whatever the dtype of the input. ``published`` does all in
            the input's dtype with the published formula: the released tower runs in bfloat16, and its codes
            are those of that rounding. Its features are x + (sum - x), which rounds off the sum of the code vectors.
        shared_codebook: one codebook for all depths (published), or one for each.
        learning: codes follow averages (``ema``, published) or the gradient of ``codebook_loss``.
        update: a shared codebook learns in each training pass once per depth, in order, each depth searching the
            table that the one before left (``per_depth``, published); or once, from the residuals of all depths
            (``per_step``), with one message over ranks and one decay. Per depth, a code that restarts at one
            depth and is not used at the next restarts there again, so only restarts of the last depth are left.
            Codebooks of their own, and those learnt by gradient, learn once either way.
        initialisation: ``normal`` draws codes from N(0, 1) (published). ``data`` puts random residuals of the
            first training batch there (of its first part, where it comes in accumulated parts: the others are already
            searched in them): of each depth into its own codebook, or into its share of the common one.
        entropy: compute ``entropy_loss``.
        entropy_temperature: of its soft choices; see ``code_entropy``.
    """

    initialised: Tensor

    def __init__(
        self,
        *,
        depth: int,
        codebook_size: int,
        width: int,
        decay: float = 0.99,
        restart_unused_codes: bool = True,
        search: Literal["float32", "published"] = "float32",
        shared_codebook: bool = True,
        learning: Literal["ema", "gradient"] = "ema",
        update: Literal["per_depth", "per_step"] = "per_depth",
        initialisation: Literal["normal", "data"] = "normal",
        entropy: bool = False,
        entropy_temperature: float = 0.5,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.search = search
        self.shared_codebook = shared_codebook
        self.entropy_temperature = entropy_temperature if entropy else None
        self.updates_per_depth = shared_codebook and learning == "ema" and update == "per_depth"
        kind = EmaCodebook if learning == "ema" else GradientCodebook
        books = [
            kind(
                num_codes=codebook_size,
                width=width,
                decay=decay,
                restart_unused_codes=restart_unused_codes,
            )
            for _ in range(1 if shared_codebook else depth)
        ]
        if shared_codebook:
            self.codebook = books[0]
        else:
            self.codebooks = nn.ModuleList(books)
        if initialisation == "data":
            self.register_buffer("initialised", torch.tensor(False))
        self._gram, self.parts = GramSearch(), Parts()

    @property
    def overwrites_parameters(self) -> bool:
        """Whether training writes into trained weights, which is lost where they are sharded."""
        book = self.book(0)
        writes = book.restart_unused_codes or hasattr(self, "initialised")
        return isinstance(book, GradientCodebook) and writes

    def book(self, depth: int) -> Codebook:
        """Return the codebook of a depth, counted from 0."""
        found = self.codebook if self.shared_codebook else self.codebooks[depth]
        assert isinstance(found, Codebook)
        return found

    # ---------------------------------------------------------------- vectors to codes

    def forward(self, features_BPZ: Tensor) -> Quantized:
        """Quantise ``(B, P, Z)``; everything runs in float32, even under autocast, unless ``published``.

        ``features`` come back in the input's dtype.
        """
        with torch.autocast(features_BPZ.device.type, enabled=False), full_float32():
            return self._quantized(features_BPZ)

    def part(self, *, more_follow: bool) -> AbstractContextManager[None]:
        """Make a training pass one of the accumulated parts of an optimiser step: codes learn with the last, once.

        All parts search the same codes. These then learn, and restart, as from one pass over the vectors of all, to the
        rounding of their features; the restarts' random numbers are drawn in the last part. Until then a part's
        vectors and codes are kept. Raises ``ConfigError`` where a depth searches what the one before has left.
        """
        if more_follow and self.training and self.updates_per_depth:
            raise ConfigError(
                "quantizer.update is per_depth: each depth searches the codes that the vectors of all accumulated "
                "parts left at the one before, and a part does not know the next; write quantizer.update: per_step, "
                "or quantizer.shared_codebook: false."
            )
        return self.parts.following(more_follow)

    @torch.no_grad()
    def encode(self, features_BPZ: Tensor) -> Tensor:
        """Return the codes ``(B, P, D)`` alone; nothing is learnt, not even in training mode."""
        B, P, Z = features_BPZ.shape
        with torch.autocast(features_BPZ.device.type, enabled=False), full_float32():
            x_NZ = self._searched(features_BPZ).view(B * P, Z)
            codes = [step.codes for step in self._walk(x_NZ, learning=False)]
        return torch.stack(codes, dim=-1).view(B, P, self.depth)

    def _searched(self, features: Tensor) -> Tensor:
        return (features if self.search == "published" else features.float()).contiguous()

    def _quantized(self, features_BPZ: Tensor) -> Quantized:
        B, P, Z = features_BPZ.shape
        x = self._searched(features_BPZ)
        target = x.detach()
        total = torch.zeros_like(target).view(B * P, Z)
        energy = target.float().square().sum(dim=(1, 2)).clamp(min=1e-12)
        codes: list[Tensor] = []
        losses, fits, entropies, left = [], [], [], []
        for step in self._walk(target.view(B * P, Z), learning=self.training):
            book = self.book(len(codes))
            if isinstance(book, GradientCodebook):
                fits.append(mean_square(step.before - F.embedding(step.codes, book.weight)))
            if self.entropy_temperature is not None:
                entropies.append(self._entropy(x.view(B * P, Z) - total, book))
            total = total + step.vectors
            codes.append(step.codes)
            losses.append(mean_square(x - total.view(B, P, Z)))
            left.append(step.after.float().view(B, P * Z).square().sum(dim=1) / energy)
        return Quantized(
            features=self._straight_through(x, total.view(B, P, Z)).to(features_BPZ.dtype),
            codes=torch.stack(codes, dim=-1).view(B, P, self.depth),
            commitment_loss=torch.stack(losses).mean(),
            residual_energy=torch.stack(left, dim=-1),
            codebook_loss=torch.stack(fits).mean() if fits else None,
            entropy_loss=torch.stack(entropies).mean() if entropies else None,
        )

    def _straight_through(self, x: Tensor, total: Tensor) -> Tensor:
        if self.search == "published":
            return x + (total - x).detach()
        # x - x.detach() is exactly zero, so the value is the sum of the code vectors to the
        # last bit and the gradient is the identity.
        return total + (x - x.detach())

    def _entropy(self, residual_NZ: Tensor, book: Codebook) -> Tensor:
        # A copy: the codes may move before the gradient is asked for.
        weight_KZ = book.weight.clone()
        assert self.entropy_temperature is not None
        return code_entropy(residual_NZ.float(), weight_KZ, temperature=self.entropy_temperature)

    # ---------------------------------------------------------------- the depths, in order

    @torch.no_grad()
    def _walk(self, x_NZ: Tensor, *, learning: bool) -> Iterator[Step]:
        """Go through the depths; codebooks that learn do so after a depth, or after the last."""
        where = GlobalRows.of(len(x_NZ), x_NZ.device) if learning else None
        per_depth = learning and self.updates_per_depth
        if where is not None:
            self._initialise(x_NZ.float(), where)
        known = None if per_depth else self._known(x_NZ)
        residual, steps = x_NZ, []
        for d in range(self.depth):
            code_N = known[:, d] if known is not None else self._nearest(residual, d)
            vectors = self.book(d).weight[code_N].to(x_NZ.dtype)
            step = Step(residual, code_N, vectors, residual - vectors)
            if per_depth:
                self._gram.forget()
                self.book(0).update(residual.float(), code_N, where)
            elif learning:
                steps.append(step)
            yield step
            residual = step.after
        if where is not None and steps:
            self._learn(steps, where)

    def _known(self, x_NZ: Tensor) -> Tensor | None:
        """The codes of all depths ``(N, D)`` where one pass over the codebook is the faster way."""
        if self.search == "published" or not self.shared_codebook:
            return None
        weight_KZ = self.book(0).weight
        if not self._gram.pays(weight_KZ, num_vectors=len(x_NZ), depth=self.depth):
            return None
        return self._gram.codes(x_NZ, weight_KZ, depth=self.depth)

    def _nearest(self, residual_NZ: Tensor, depth: int) -> Tensor:
        book = self.book(depth)
        if self.search == "published":
            return nearest_as_published(residual_NZ, book.weight.to(residual_NZ.dtype))
        return book.nearest(residual_NZ)

    def _learn(self, steps: list[Step], where: GlobalRows) -> None:
        """Update once from all depths and, with the last part of an optimiser step, from the parts before it."""
        residuals, codes = [step.before for step in steps], [step.codes for step in steps]
        if self.parts.more_follow or len(self.parts):
            self.parts.add(residuals[0], codes)
            if self.parts.more_follow:
                return
            x_NZ, codes, where = self.parts.take()
            left = [
                self.book(d).weight[code_N].to(x_NZ.dtype) for d, code_N in enumerate(codes[:-1])
            ]
            residuals = list(accumulate([x_NZ, *left], torch.sub))
        self._gram.forget()
        vectors = [residual.float() for residual in residuals]
        if self.shared_codebook:
            all_vectors = torch.stack(vectors, dim=1).flatten(0, 1)
            all_codes = torch.stack(codes, dim=1).flatten()
            self.book(0).update(all_vectors, all_codes, where.times(self.depth))
        else:
            update_codebooks([self.book(d) for d in range(self.depth)], vectors, codes, where)

    def _initialise(self, x_NZ: Tensor, where: GlobalRows) -> None:
        """Start the codes from the first batch where they are to, once.

        The vectors are dealt out to the depths: a vector that became a code leaves no residual.
        """
        if not hasattr(self, "initialised") or bool(self.initialised) or where.total == 0:
            return
        D, K = self.depth, len(self.book(0).weight)
        place_N = torch.arange(len(x_NZ), device=x_NZ.device) + where.start
        residual = x_NZ
        for d in range(D):
            dealt = residual[place_N % D == d] if where.total >= D else residual
            rows, book = GlobalRows.of(len(dealt), dealt.device), self.book(d)
            share = [-(-K * part // D) for part in (d, d + 1)]
            codes = range(*share) if self.shared_codebook else range(K)
            if codes:
                book.fill(codes, dealt, rows)
            started = book.weight[: codes.stop]
            residual = residual - started[nearest(residual, started)]
        self.initialised.fill_(True)

    # ---------------------------------------------------------------- codes to vectors

    def vectors(self, codes: Tensor, depth: int) -> Tensor:
        """Return the code vectors of one depth (from 0): codes of any shape to ``(..., Z)``, float32."""
        return self.book(depth).weight.detach()[codes]

    def embed(self, codes_BPD: Tensor, upto: int | None = None) -> Tensor:
        """Sum the code vectors of the first ``upto`` depths (all): ``(B, P, D)`` to ``(B, P, Z)``."""
        return self.embed_cumulative(codes_BPD[..., :upto])[..., -1, :]

    def embed_cumulative(self, codes_BPD: Tensor) -> Tensor:
        """Return the partial sums after each depth: ``(B, P, D)`` to ``(B, P, D, Z)``, float32.

        Added one after another as ``forward`` does (torch's sum and cumsum round otherwise).
        """
        depths = codes_BPD.unbind(dim=-1)
        vectors = [self.vectors(code, d) for d, code in enumerate(depths)]
        return torch.stack(list(accumulate(vectors, torch.add)), dim=-2)
