"""Where a tower's training starts from: the paper's recipe and those that it found to fail (section 3.1)."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import SiglipModel

from vilau.errors import CheckpointError, ConfigError
from vilau.models.loading import load_tower
from vilau.models.siglip import build_siglip, load_siglip
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
        if self.siglip is not None and start != "random":
            raise ConfigError(
                f"start.siglip gives the sizes of a random SigLIP, but start.initialisation is {start}; "
                "write start.initialisation: random, or take start.siglip out."
            )


def start_tower(
    start: StartConfig,
    pretrained: str,
    quantizer: QuantizerConfig | dict[str, Any] | None,
    decoder: DecoderConfig | dict[str, Any] | None,
) -> VisionTower:
    """Build the tower; quantiser and decoder None: those of the checkpoint, else the published ones.

    Raises ``CheckpointError`` for a checkpoint of other sizes.
    """
    found = None if start.checkpoint is None else load_tower(start.checkpoint)
    config = None if found is None else found.config
    quantizer = given(config.quantizer if config else QuantizerConfig(), quantizer)
    decoder = given(config.decoder if config else DecoderConfig(), decoder)
    if start.initialisation == "siglip":
        tower = VisionTower.from_siglip(pretrained, quantizer=quantizer, decoder=decoder)
    else:
        siglip, sizes = _siglip(start, pretrained, found)
        check_decoder(decoder, sizes)
        tower = VisionTower(TowerConfig(asdict(sizes), quantizer, decoder), siglip)
    if found is not None:
        _fill(tower, found, start)
    return tower


def _siglip(
    start: StartConfig, pretrained: str, found: VisionTower | None
) -> tuple[SiglipModel, SiglipSizes]:
    if start.initialisation == "tower":
        assert found is not None
        return found.siglip, found.sizes
    if start.initialisation == "text":
        source, sizes = load_siglip(pretrained)
        model = build_siglip(sizes, logit_bias=start.logit_bias)
        model.text_model.load_state_dict(source.text_model.state_dict())
        return model, sizes
    sizes = start.siglip or _sizes_of(pretrained)
    return build_siglip(sizes, logit_bias=start.logit_bias), sizes


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


def _sizes_of(source: str) -> SiglipSizes:
    with torch.device("meta"):  # the sizes alone: no weights are read
        return load_siglip(source)[1]
