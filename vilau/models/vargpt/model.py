"""VARGPT: a language model that reads features and draws scale by scale (Zhuang et al. 2025, sections 3.1 to 3.3).

B rows, T tokens, N images, n of them, P cells of all scales, Q patches, C decoder width, E language-model width.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vilau.errors import CheckpointError, ConfigError
from vilau.models.causal.model import CausalModel
from vilau.models.language import (
    CausalLM,
    MetaTokenizer,
    build_language_model,
    start_language_model,
    text_tokenizer,
    with_null_token,
)
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.rows import Layout
from vilau.models.sizes import IMAGE_TOKENIZER_FOLDER, LanguageConfig
from vilau.models.storage import (
    CONFIG_FILE,
    TOKENIZER_FOLDER,
    building_on_meta,
    fitting_config,
    load_weights,
    read_config,
    save_folder,
    writes_files,
)
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vargpt.config import KIND, UNCONDITIONALS, DecoderConfig, ReaderConfig
from vilau.models.vargpt.decoder import ScaleDecoder
from vilau.models.vargpt.drawing import draw_scales
from vilau.models.vargpt.reader import PictureReader, build_vision, check_layer, start_vision
from vilau.models.vargpt.seen import Seen
from vilau.models.vargpt.start import build_decoder, start_decoder
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE
from vilau.models.weight_files import Unfilled


class ScaleLayout(SequenceLayout):
    """Lays documents out for a model whose state at a place predicts the code at the same place."""

    lag = 0


class Vargpt(CausalModel):
    """A language model among whose words stand features of pictures to read, and cells of pictures to draw.

    What is read comes from an image encoder, not from codes. What is drawn are the cells of all scales: each is shown
    what the coarser scales stand for at its place, the language model works on all of them, and a transformer over
    scales predicts their codes from its states.
    """

    tokenizer: MultiScaleVQVAE
    plain_layout = ScaleLayout

    def __init__(
        self,
        tokenizer: MultiScaleVQVAE,
        language: CausalLM,
        language_config: LanguageConfig,
        reader: PictureReader,
        decoder: ScaleDecoder,
        prompt: PromptConfig,
        words: Any,
        *,
        unconditional: str = "prompt",
    ) -> None:
        """Take the parts.

        ``unconditional`` is what guidance moves away from: what the language model says of the null prompt, or normal
        noise in the place of its states, as published (no row of the decoder ever learns from noise).

        Raises ``ConfigError`` for a tokenizer of one scale, or whose first scale has more than one cell.
        """
        sides = tokenizer.spec.levels
        if len(sides) < 2 or sides[0] != (1, 1):
            raise ConfigError(
                f"the image tokenizer has {len(sides)} scales, the first of {sides[0][0]} x {sides[0][1]} cells, but "
                "VARGPT draws scale after scale from a single cell; take a tokenizer of scales that begin with 1."
            )
        if unconditional not in UNCONDITIONALS:
            raise ConfigError(
                f"unconditional is {unconditional!r}; write {' or '.join(UNCONDITIONALS)}."
            )
        if prompt.form == "published":
            raise ConfigError(
                "prompt.form is published, but the strings of VARGPT's release are not known here yet; write plain."
            )
        if decoder.config.num_conditions != 1:
            raise ConfigError(
                f"decoder.num_conditions is {decoder.config.num_conditions}, but VARGPT tells its decoder the same of "
                "every image; write 1."
            )
        super().__init__(
            tokenizer, language, language_config, prompt, words, read_positions=reader.num_positions
        )
        self.reader, self.decoder, self.unconditional = reader, decoder, unconditional
        width, inner = language.config.hidden_size, decoder.config.width
        self.to_language = _projector(inner, width)
        self.to_decoder = _projector(width, inner)

    @classmethod
    def start(
        cls,
        tokenizer: MultiScaleVQVAE,
        language: LanguageConfig,
        reader: ReaderConfig,
        decoder: DecoderConfig,
        prompt: PromptConfig,
        *,
        unconditional: str = "prompt",
        decoder_checkpoint: str | None = None,
        allow_pickle: bool = False,
    ) -> "Vargpt":
        """Put a trained image tokenizer, an image encoder and a decoder around a language model.

        The decoder is new, or VAR's own from the file ``decoder_checkpoint``, see ``start_decoder``.
        """
        model, words, language = start_language_model(language)
        if prompt.null == "learned":
            words, language = with_null_token(model, words, language, name=prompt.null_token)
        vision, reader = start_vision(reader)
        check_layer(reader)
        return cls(
            tokenizer,
            model,
            language,
            PictureReader(vision, reader, model.config.hidden_size),
            start_decoder(decoder, tokenizer, decoder_checkpoint, allow_pickle=allow_pickle),
            prompt,
            words,
            unconditional=unconditional,
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        tokenizer: MultiScaleVQVAE,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = torch.float32,
        allow_pickle: bool = False,
    ) -> "Vargpt":
        """Load a model saved by ``save`` beside its image tokenizer, which ``vilau.load`` opens first.

        Arguments and errors are those of ``VilaU.load``; ``CheckpointError`` also for another image tokenizer.
        """
        config = read_config(folder, KIND)
        with fitting_config(folder):
            language, prompt = (
                LanguageConfig(**config["language"]),
                PromptConfig(**config["prompt"]),
            )
            reader, decoder = ReaderConfig(**config["reader"]), DecoderConfig(**config["decoder"])
            known, unconditional = str(config["image_tokenizer"]), str(config["unconditional"])
        # In half precision its tensors are others, rounded from those that were saved.
        exact = dtype in (None, torch.float32) and not building_on_meta()
        if exact and (found := tokenizer.identity()) != known:
            raise CheckpointError(
                f"{folder} was trained with the image tokenizer {known}, but {found} stands in its place; put the "
                f"{IMAGE_TOKENIZER_FOLDER}/ of the same run there."
            )
        own_words = Path(folder) / TOKENIZER_FOLDER
        words = load_tokenizer(str(own_words)) if own_words.exists() else text_tokenizer(language)
        with Unfilled():
            built = build_language_model(language)
            pictures = PictureReader(build_vision(reader), reader, built.config.hidden_size)
            model = cls(
                tokenizer,
                built,
                language,
                pictures,
                build_decoder(decoder, tokenizer),
                prompt,
                words,
                unconditional=unconditional,
            )
        load_weights(model._own(), folder, device=device, dtype=dtype, allow_pickle=allow_pickle)
        return model.to(device=device)

    def save(self, folder: str | Path) -> None:
        """Write the image tokenizer in a folder of its own, then all else, its config and its words."""
        if writes_files():  # a folder with a config is complete: that of an older model goes first
            (Path(folder) / CONFIG_FILE).unlink(missing_ok=True)
        self.tokenizer.save(Path(folder) / IMAGE_TOKENIZER_FOLDER)
        on_meta = next(self.tokenizer.parameters()).device.type == "meta"
        config = {
            "image_tokenizer": "" if on_meta else self.tokenizer.identity(),
            "language": asdict(self.language_config),
            "reader": asdict(self.reader.config),
            "decoder": asdict(self.decoder.config),
            "prompt": asdict(self.prompt),
            "unconditional": self.unconditional,
        }
        words = None if isinstance(self.words, MetaTokenizer) else self.words
        save_folder(folder, kind=KIND, config=config, module=self._own(), tokenizer=words)

    def _own(self) -> nn.ModuleDict:
        """All parts but the image tokenizer, which has files of its own."""
        names = ("language", "reader", "decoder", "to_language", "to_decoder")
        return nn.ModuleDict({name: getattr(self, name) for name in names})

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; image tokenizer and image encoder stay in evaluation mode."""
        super().train(mode)
        self.reader.vision.eval()
        return self

    def learning_parts(self) -> dict[str, list[nn.Module]]:
        """The language model, the projector of what is read, the decoder, and the projectors around it.

        With the latter learns what the decoder is told of every image, which is made anew where the decoder is VAR's:
        so does the release's first stage, of which the paper names the projectors alone (reference A3.6).
        """
        around = [self.to_language, self.to_decoder]
        return {
            "language": [self.language],
            "reader": [self.reader.projector],
            "decoder": [self.decoder],
            "projectors": [*around, self.decoder.condition_embedding],
        }

    def blocks_to_shard(self) -> list[nn.Module]:
        """The blocks of the language model and of the decoder.

        Those of the frozen image encoder stay together with all else: a rank whose documents show no image does not
        run them, and must not be waited for.
        """
        return [*self.language.model.layers, *self.decoder.blocks]

    # ---------------------------------------------------------------- images among words

    def see(self, images: Tensor, codes: Tensor | None = None) -> Seen:
        """Keep the images; what is read of them and which codes they have is found where it is asked for."""
        return Seen(images, codes, self.tokenizer)

    def embedded(self, layout: Layout, seen: Seen | None) -> Tensor:
        """Embed a layout ``(B, T, E)``: words from the table, pictures that are read by features, others by cells."""
        inputs_BTE = self.language.get_input_embeddings()(layout.ids)
        drawn = layout.span_drawn
        for chosen, visual in ((~drawn, self._read), (drawn, self._cells)):
            if not chosen.any():
                if (
                    torch.is_grad_enabled()
                ):  # a made-up image that weighs nothing, for the weights' sake
                    inputs_BTE = inputs_BTE + 0.0 * self._made_up(read=visual == self._read)
                continue
            assert seen is not None
            found_nPE = visual(seen, layout.span_images[chosen])
            places = torch.arange(found_nPE.shape[1], device=inputs_BTE.device)
            columns_nP = layout.span_starts[chosen, None] + places
            at = (layout.span_rows[chosen, None], columns_nP)
            inputs_BTE = inputs_BTE.index_put(at, found_nPE.to(inputs_BTE.dtype))
        return inputs_BTE

    def codes_of(self, seen: Seen, index_n: Tensor) -> Tensor:
        """The codes ``(n, P, 1)`` of some of the images."""
        return seen.codes(index_n)

    def visual_loss(self, hidden_nPE: Tensor, codes_nPD: Tensor) -> Tensor:
        """Sum of the cross entropies of codes, each predicted by the state at its own place."""
        logits = self.code_logits(hidden_nPE)
        return F.cross_entropy(logits.flatten(0, 1), codes_nPD.flatten(), reduction="sum")

    def code_logits(self, hidden_nPE: Tensor, **caches: Any) -> Tensor:
        """Logits ``(n, P, V)`` of the codes of the cells of whole scales; ``caches`` are the decoder's."""
        return self.decoder(self.to_decoder(hidden_nPE), self.condition(), **caches)

    def condition(self) -> Tensor:
        """What the decoder is told beside the cells ``(1, C)``: the same for all, in learning as in drawing.

        (The release draws with a row that one sample in ten was trained with: reference A3.4.)
        """
        return self.decoder.condition(torch.zeros(1, dtype=torch.int64, device=self.device))

    def cells(self, maps: Tensor | None, *, first: int = 0) -> Tensor:
        """Inputs ``(n, p * p, E)`` of the cells that are shown ``maps``, see ``ScaleDecoder.embed``."""
        return self.to_language(self.decoder.embed(maps, self.condition(), first=first))

    def _read(self, seen: Seen, index_n: Tensor) -> Tensor:
        once, places = index_n.unique(return_inverse=True)
        return self.reader(seen.pixels(once))[places]

    def _cells(self, seen: Seen, index_n: Tensor) -> Tensor:
        return self.cells(self.tokenizer.shown(seen.codes(index_n)))

    def _made_up(self, *, read: bool) -> Tensor:
        if read:
            width = self.reader.config.hidden_size
            return self.reader.project(self.decoder.start.new_zeros(1, 1, width)).sum()
        spec = self.tokenizer.spec
        maps = self.decoder.start.new_zeros(1, spec.num_positions - 1, spec.embed_dim)
        return self.cells(maps).sum()

    @property
    def reading_size(self) -> int:
        """The image encoder's, where it sees more than is drawn."""
        return max(self.reader.config.image_size, self.tokenizer.spec.image_size)

    # ---------------------------------------------------------------- drawing

    def draw_codes(self, prompts: Sequence[str], *, num_images: int, **settings: Any) -> Tensor:
        """Draw codes scale by scale, see ``drawing.draw_scales``."""
        return draw_scales(self, prompts, num_images=num_images, **settings)


def _projector(width: int, out: int) -> nn.Sequential:
    """As published: 1920 to 1920 to 4096 and 4096 to 4096 to 1920 (its layer norm is never applied: reference A3.1)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))
