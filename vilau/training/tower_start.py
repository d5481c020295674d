"""Where a tower's training starts from: the paper's recipe and those that it found to fail (section 3.1)."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import SiglipModel

from vilau.errors import CheckpointError, ConfigError
from vilau.models.encoders.load import load_encoders, resized_encoders
from vilau.models.encoders.names import RANDOM, timm_source
from vilau.models.encoders.weights import build_encoders
from vilau.models.loading import load_tower
from vilau.models.sizes import SiglipSizes
from vilau.models.storage import building_on_meta
from vilau.models.vila_u.config import DecoderConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.tower import VisionTower, check_decoder
from vilau.training.base import given

INITIALISATIONS = ("siglip", "text", "random", "tower")
STARTED = "quantizer.initialised"


@dataclass
class StartConfig:
    """What a tower is made of before training."""

    initialisation: Literal["siglip", "text", "random", "tower"] = "siglip"
    """Where the SigLIP comes from. ``siglip``: all of ``pretrained``. ``text``: its text tower alone, the rest
    random. ``random``: all random, in the sizes ``siglip`` or in ``pretrained``'s. ``tower``: all, with quantiser
    and decoder, from ``checkpoint``."""
    checkpoint: str | None = None
    """The ``model`` folder of a tower-training run. Beside another initialisation than ``tower`` it gives what
    encodes, quantises and decodes: the blocks up to the quantiser, the codebook, the pixel decoder."""
    siglip: SiglipSizes | None = None
    """Sizes of a random SigLIP, or of a random text tower."""
    text: str | None = None
    """Where the text tower comes from, if not from ``pretrained``: another SigLIP's name, or ``random``. timm's
    ViTs (``pretrained: timm/<name>``) have none of their own."""
    image_size: int | None = None
    """Pixels per side, if not those that ``pretrained`` or ``checkpoint`` was made for: the position embeddings are
    interpolated."""
    logit_bias: float = -10.0
    """Where the bias of the contrastive logits starts, unless it is pretrained; see ``ClipPretraining``."""

    def __post_init__(self) -> None:
        start = self.initialisation
        if isinstance(self.siglip, dict):  # as checkpoints keep it
            self.siglip = SiglipSizes(**self.siglip)
        if start not in INITIALISATIONS:
            raise ConfigError(
                f"start.initialisation is {start!r}; write {' or '.join(INITIALISATIONS)}."
            )
        if start == "tower" and self.checkpoint is None:
            raise ConfigError(
                "start.initialisation is tower, but start.checkpoint names none; write the `model` folder of "
                "a tower-training run there."
            )
        if self.siglip is not None and start != "random" and self.text != RANDOM:
            raise ConfigError(
                f"start.siglip gives the sizes of a random SigLIP, but start.initialisation is {start}; "
                "write start.initialisation: random, or take start.siglip out."
            )
        if self.text is not None and start not in (
            "siglip",
            "text" if self.text != RANDOM else None,
        ):
            raise ConfigError(
                f"start.text is {self.text}, but start.initialisation: {start} has a text tower of its own; take "
                "start.text out, or write start.initialisation: siglip."
            )
        if self.image_size is not None and self.siglip is not None and start == "random":
            raise ConfigError(
                f"start.image_size is {self.image_size}, but start.siglip has an image size of its own; write "
                "start.siglip.image_size."
            )


def start_tower(
    start: StartConfig,
    pretrained: str,
    quantizer: QuantizerConfig | dict[str, Any] | None,
    decoder: DecoderConfig | dict[str, Any] | None,
) -> VisionTower:
    """Build the tower; quantiser and decoder None: those of the checkpoint, else the published ones.

    Raises ``CheckpointError`` for a checkpoint of other sizes, ``ConfigError`` for a decoder whose pixels are not
    the image's.
    """
    found = None if start.checkpoint is None else _checkpoint(start.checkpoint, start.image_size)
    config = None if found is None else found.config
    quantizer = given(config.quantizer if config else QuantizerConfig(), quantizer)
    decoder = given(config.decoder if config else DecoderConfig(), decoder)
    siglip, sizes = _siglip(start, pretrained, found)
    check_decoder(decoder, sizes)
    tower = VisionTower(TowerConfig(asdict(sizes), quantizer, decoder), siglip)
    if found is not None:
        _fill(tower, found, start)
    return tower


def _checkpoint(folder: str, image_size: int | None) -> VisionTower:
    """Load a tower; with ``image_size`` its positions, and its decoder's config, become those of that size."""
    found = load_tower(folder)
    if image_size is not None:
        old = found.sizes
        found.siglip, found.sizes = resized_encoders(found.siglip, old, image_size)
        decoder = _resized_decoder(found.config.decoder, old, found.sizes)
        found.config = replace(found.config, decoder=decoder)
    return found


def _resized_decoder(decoder: DecoderConfig, old: SiglipSizes, new: SiglipSizes) -> DecoderConfig:
    """Return the config of the same layers for another image: attention stays in the levels where it is."""
    doublings = len(decoder.multipliers) - 1
    before, after = old.grid, new.grid
    if decoder.latent_grid is not None:
        before, after = decoder.latent_grid, new.image_size // (2**doublings * decoder.output_patch)
    grids = {before * 2**level: after * 2**level for level in range(doublings + 1)}
    return replace(
        decoder,
        latent_grid=None if decoder.latent_grid is None else after,
        attention_grids=tuple(grids[grid] for grid in decoder.attention_grids if grid in grids),
    )


def _siglip(
    start: StartConfig, pretrained: str, found: VisionTower | None
) -> tuple[SiglipModel, SiglipSizes]:
    if start.initialisation == "tower":
        assert found is not None
        return found.siglip, found.sizes
    if start.initialisation == "siglip":
        return _pretrained(start, pretrained)
    if start.initialisation == "text":
        if start.text is None:
            source, sizes = _pretrained(start, pretrained)
        else:  # of ``pretrained`` the sizes alone
            sizes, (source, _) = _sizes_of(start, pretrained), load_encoders(start.text)
        model = build_encoders(sizes, logit_bias=start.logit_bias)
        model.text_model.load_state_dict(source.text_model.state_dict())
        return model, sizes
    sizes = start.siglip or _sizes_of(start, pretrained)
    return build_encoders(sizes, logit_bias=start.logit_bias), sizes


def _pretrained(start: StartConfig, pretrained: str) -> tuple[SiglipModel, SiglipSizes]:
    return load_encoders(
        pretrained,
        text=start.text,
        text_sizes=start.siglip,
        image_size=start.image_size,
        logit_bias=start.logit_bias,
    )


def _fill(tower: VisionTower, found: VisionTower, start: StartConfig) -> None:
    """Copy the checkpoint's weights, or those that encode, quantise and decode."""
    prefixes = ("",) if start.initialisation == "tower" else autoencoder_prefixes(tower)
    ours, theirs = _chosen(tower, prefixes), _chosen(found, prefixes)
    for name in sorted(ours.keys() | theirs.keys()):
        have, want = (
            f"of shape {tuple(state[name].shape)}" if name in state else "not at all"
            for state in (theirs, ours)
        )
        if have != want:
            raise CheckpointError(
                f"start.checkpoint {start.checkpoint} has {name} {have}, the tower to be trained {want}; "
                "write quantizer, decoder and the SigLIP's sizes as in the checkpoint's config.json."
            )
    if building_on_meta():
        return
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])
        if (started := tower.state_dict().get(STARTED)) is not None:
            started.fill_(True)


def autoencoder_prefixes(tower: VisionTower) -> tuple[str, ...]:
    """Return how the names of the weights begin that encode, quantise and decode."""
    vision = "siglip.vision_model."
    blocks = range(len(tower.siglip.vision_model.encoder.layers) - 1)
    return (
        f"{vision}embeddings.",
        *(f"{vision}encoder.layers.{number}." for number in blocks),
        "quantizer.",
        "post_quant_conv.",
        "decoder.",
    )


def _chosen(module: nn.Module, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors under these names; a codebook's mark that it has started is none of them."""
    return {
        name: tensor
        for name, tensor in module.state_dict().items()
        if name != STARTED and name.startswith(prefixes)
    }


def _sizes_of(start: StartConfig, pretrained: str) -> SiglipSizes:
    if start.initialisation == "random" and timm_source(pretrained) is not None:
        start = replace(start, text=RANDOM, initialisation="siglip")
    with torch.device("meta"):  # the sizes alone: no weights are read
        return _pretrained(start, pretrained)[1]
