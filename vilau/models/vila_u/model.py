"""VILA-U: a vision tower, a language model and a depth transformer under one next-token loss (section 3.2).

B rows, T tokens, N images, P positions, D residual depth, Z code width, E language-model width, K codebook size.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM

from vilau.generation.engine import draw_positions
from vilau.generation.guidance import guide
from vilau.generation.sampling import draw, filter_probabilities, row_uniforms
from vilau.layers.pixels import to_float
from vilau.models.interface import LossTerms, UnifiedModel
from vilau.models.language import (
    LanguageConfig,
    MetaTokenizer,
    build_language_model,
    start_language_model,
    text_tokenizer,
)
from vilau.models.storage import (
    TOKENIZER_FOLDER,
    fitting_config,
    load_weights,
    read_config,
    save_folder,
)
from vilau.models.vila_u.config import HeadConfig, PromptConfig, TowerConfig
from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.sequence import Layout, SequenceLayout
from vilau.models.vila_u.tower import VisionTower
from vilau.types import MultimodalBatch

KIND = "vila_u"


class VilaU(UnifiedModel):
    """The tower's codes in, text or codes out."""

    tokenizer: VisionTower

    def __init__(
        self,
        *,
        tower: VisionTower,
        language: LlamaForCausalLM,
        language_config: LanguageConfig,
        head_config: HeadConfig,
        prompt: PromptConfig,
        words: Any,
    ) -> None:
        super().__init__()
        self.language_config, self.head_config, self.prompt = language_config, head_config, prompt
        spec = tower.spec
        self.tokenizer = tower.requires_grad_(requires_grad=False).eval()
        self.language = language
        width = language.config.hidden_size
        # The published mlp2x_gelu projector: code width -> language width -> language width.
        self.projector = nn.Sequential(
            nn.Linear(spec.embed_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.head = DepthTransformer(
            head_config,
            depth=spec.depth,
            code_width=spec.embed_dim,
            hidden_width=width,
            codebook_size=spec.codebook_size,
        )
        self.words = words
        self.sequence = SequenceLayout(words, prompt, num_positions=spec.num_positions)

    @classmethod
    def start(
        cls, tower: VisionTower, language: LanguageConfig, head: HeadConfig, prompt: PromptConfig
    ) -> "VilaU":
        """Put a trained tower before a (pretrained or random) language model."""
        model, words, language = start_language_model(language)
        return cls(
            tower=tower,
            language=model,
            language_config=language,
            head_config=head,
            prompt=prompt,
            words=words,
        )

    @classmethod
    def load(cls, folder: str | Path) -> "VilaU":
        """Load a model saved by ``save``; raises ``CheckpointError`` for anything else."""
        config = read_config(folder, KIND)
        with fitting_config(folder):
            tower = TowerConfig.from_dict(config["tower"])
            language = LanguageConfig(**config["language"])
            head, prompt = HeadConfig(**config["head"]), PromptConfig(**config["prompt"])
        own_words = Path(folder) / TOKENIZER_FOLDER
        source = str(own_words) if own_words.exists() else language.tokenizer
        model = cls(
            tower=VisionTower(tower),
            language=build_language_model(language),
            language_config=language,
            head_config=head,
            prompt=prompt,
            words=text_tokenizer(replace(language, tokenizer=source)),
        )
        load_weights(model, folder)
        return model

    def save(self, folder: str | Path) -> None:
        """Write config, weights and the text tokenizer."""
        config = {
            "tower": self.tokenizer.config.to_dict(),
            "language": asdict(self.language_config),
            "head": asdict(self.head_config),
            "prompt": asdict(self.prompt),
        }
        words = None if isinstance(self.words, MetaTokenizer) else self.words
        save_folder(folder, kind=KIND, config=config, module=self, tokenizer=words)

    def train(self, mode: bool = True) -> "VilaU":
        """Switch training mode; the tower stays in evaluation mode (its codebook must not move)."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.language.device

    # ---------------------------------------------------------------- training

    def losses(self, batch: MultimodalBatch) -> LossTerms:
        """Text and visual cross entropy over the targets of a batch (reference 3.4)."""
        device = self.device
        layout = self.sequence.lay_out(batch.documents).to(device)
        codes_NPD, vectors_NPZ = self._tokenize(batch.images)
        hidden_BTE = self._hidden(layout, vectors_NPZ)
        terms = LossTerms()
        self._text_loss(terms, layout, hidden_BTE)
        self._visual_loss(terms, layout, hidden_BTE, codes_NPD)
        return terms

    @torch.no_grad()
    def _tokenize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not len(images):  # transformers' attention cannot reshape an empty batch
            codes_NPD = images.new_zeros(
                0, self.sequence.num_positions, self.head.depth, dtype=torch.int64
            )
            return codes_NPD, self.tokenizer.embed(codes_NPD)
        quantized = self.tokenizer.quantize(to_float(images))
        return quantized.codes, quantized.features

    def _inputs(self, layout: Layout, vectors_NPZ: Tensor) -> Tensor:
        """Embed a layout: words from the table, image spans from the projected code vectors."""
        inputs_BTE = self.language.get_input_embeddings()(layout.ids)
        if not len(layout.span_rows):
            # A made-up position that weighs nothing: under data parallelism every rank must use
            # every weight, also on a batch of text alone.
            unseen = torch.zeros(1, self.tokenizer.spec.embed_dim, device=self.device)
            return inputs_BTE + 0.0 * self._project(unseen).sum()
        places = torch.arange(self.sequence.num_positions, device=inputs_BTE.device)
        columns_nP = layout.span_starts[:, None] + places
        visual = self._project(vectors_NPZ[layout.span_images])
        return inputs_BTE.index_put((layout.span_rows[:, None], columns_nP), visual)

    def _project(self, vectors: Tensor) -> Tensor:
        """Map code vectors ``(..., Z)`` to inputs of the language model ``(..., E)``, in its dtype.

        Not autocast's: the residual stream of drawing must be that of training.
        """
        return self.projector(vectors).to(self.language.get_input_embeddings().weight.dtype)

    def _hidden(self, layout: Layout, vectors_NPZ: Tensor) -> Tensor:
        # Right padding lies after every real token, so the causal mask alone keeps it out.
        inputs = self._inputs(layout, vectors_NPZ)
        return self.language.model(inputs_embeds=inputs, use_cache=False).last_hidden_state

    def _text_loss(self, terms: LossTerms, layout: Layout, hidden_BTE: Tensor) -> None:
        # Nothing stands before the first token of a row, so nothing predicts it.
        rows, columns = layout.targets[:, 1:].nonzero(as_tuple=True)
        logits = self.language.get_output_embeddings()(hidden_BTE[rows, columns])
        loss = F.cross_entropy(logits.float(), layout.ids[rows, columns + 1], reduction="sum")
        terms.add("text", loss, len(rows))

    def _visual_loss(
        self, terms: LossTerms, layout: Layout, hidden_BTE: Tensor, codes_NPD: Tensor
    ) -> None:
        chosen = layout.span_targets
        P = self.sequence.num_positions
        if not chosen.any():  # again one made-up position, for the head's weights
            codes = codes_NPD.new_zeros(1, self.head.depth)
            partial = self.tokenizer.quantizer.embed_cumulative(codes)
            terms.add("visual", 0.0 * self.head(hidden_BTE[0, :1], partial).float().sum(), 0)
            return
        # The state at <im_start> predicts the first position, position p the one after it.
        columns_nP = (
            layout.span_starts[chosen, None] - 1 + torch.arange(P, device=hidden_BTE.device)
        )
        hidden = hidden_BTE[layout.span_rows[chosen, None], columns_nP].flatten(0, 1)
        codes = codes_NPD[layout.span_images[chosen]].flatten(0, 1)
        logits = self.head(hidden, self.tokenizer.quantizer.embed_cumulative(codes))
        loss = F.cross_entropy(logits.float().flatten(0, 1), codes.flatten(), reduction="sum")
        terms.add("visual", loss, codes.numel())

    # ---------------------------------------------------------------- generation

    @torch.no_grad()
    def generate_images(
        self,
        prompts: Sequence[str],
        *,
        guidance_scale: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 900,
        top_p: float = 0.96,
        seeds: Sequence[int],
        negative_prompt: str | None = None,
    ) -> Tensor:
        """Draw one image per prompt; see ``UnifiedModel.generate_images``."""
        codes = self.generate_codes(
            prompts,
            guidance_scale=guidance_scale,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seeds=seeds,
            negative_prompt=negative_prompt,
        )
        return self.tokenizer.decode(codes).float().clamp(-1, 1)

    @torch.no_grad()
    def generate_codes(
        self,
        prompts: Sequence[str],
        *,
        guidance_scale: float,
        temperature: float,
        top_k: int,
        top_p: float,
        seeds: Sequence[int],
        negative_prompt: str | None = None,
    ) -> Tensor:
        """Draw codes ``(B, P, D)``; guidance runs the null prompt in the second half of one batch."""
        device = self.device
        spec, B = self.tokenizer.spec, len(prompts)
        guided = guidance_scale != 1.0
        rows = [*prompts, *([negative_prompt or ""] * B if guided else [])]
        layout = self.sequence.drawing_prompts(rows).to(device)
        uniforms = row_uniforms(seeds, spec.num_positions * spec.depth, device)

        def choose(logits_NK: Tensor, position: int, depth: int) -> Tensor:
            if guided:
                logits_NK = guide(logits_NK[:B].float(), logits_NK[B:].float(), guidance_scale)
            probs = filter_probabilities(
                logits_NK, temperature=temperature, top_k=top_k, top_p=top_p
            )
            code_B = draw(probs, uniforms[:, position * spec.depth + depth])
            return code_B.repeat(2) if guided else code_B

        def draw_codes(hidden_NE: Tensor, position: int) -> Tensor:
            codes_ND, _ = self.head.sample(
                hidden_NE,
                choose=lambda logits, depth: choose(logits, position, depth),
                vectors=lambda codes: self.tokenizer.quantizer.codebook.weight[codes],
            )
            return codes_ND[:B]

        def embed(codes_BD: Tensor) -> Tensor:
            visual = self._project(self.tokenizer.embed(codes_BD[:, None]))
            return visual.repeat(2, 1, 1) if guided else visual

        return draw_positions(
            CachedBackbone(self.language, layout.mask),
            self.language.get_input_embeddings()(layout.ids),
            num_positions=spec.num_positions,
            draw=draw_codes,
            embed=embed,
        )

    @torch.no_grad()
    def generate_text(
        self,
        prompts: Sequence[str],
        images: Tensor | None = None,
        *,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Answer prompts; see ``UnifiedModel.generate_text``."""
        device = self.device
        layout = self.sequence.question_prompts(prompts, with_images=images is not None).to(device)
        vectors = torch.empty(0) if images is None else self.tokenizer.quantize(images).features
        backbone = CachedBackbone(self.language, layout.mask)
        hidden = backbone(self._inputs(layout, vectors))
        end = self.words.eos_token_id
        sampling = temperature > 0
        uniforms = row_uniforms(seeds or range(len(prompts)), max_new_tokens, device)
        answers = torch.full((len(prompts), max_new_tokens), end, device=device)
        running = torch.ones(len(prompts), dtype=torch.bool, device=device)
        for step in range(max_new_tokens):
            logits = self.language.get_output_embeddings()(hidden).float()
            if sampling:
                probs = filter_probabilities(logits, temperature=temperature, top_p=top_p)
                token = draw(probs, uniforms[:, step])
            else:
                token = logits.argmax(dim=-1)
            token = torch.where(running, token, end)
            answers[:, step] = token
            running &= token != end
            if not running.any() or step + 1 == max_new_tokens:
                break
            hidden = backbone(self.language.get_input_embeddings()(token)[:, None])
        decoded = self.words.batch_decode(answers, skip_special_tokens=True)
        return [text.strip() for text in decoded]


class CachedBackbone:
    """The language model's body with its cache: new embeddings in, last hidden state out."""

    def __init__(self, language: LlamaForCausalLM, mask_BT: Tensor) -> None:
        self.body = language.model
        self.cache = DynamicCache(config=language.config)
        self.mask_BT = mask_BT
        self.num_seen = 0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Take ``(N, T, E)`` of new positions (the first call: the left-padded prompt), return ``(N, E)``."""
        new = inputs.shape[1]
        missing = self.num_seen + new - self.mask_BT.shape[1]
        if missing > 0:
            ones = self.mask_BT.new_ones(len(self.mask_BT), missing)
            self.mask_BT = torch.cat([self.mask_BT, ones], dim=1)
        positions = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]
        self.num_seen += new
        out = self.body(
            inputs_embeds=inputs,
            attention_mask=self.mask_BT,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]
