"""Training the image tokenizers of Liquid and VARGPT: VQGAN's losses, around codes on one grid or over scales.

VARGPT section 3.1 takes VAR's, whose training code was never released; its quantiser's losses were (reference A1.4),
the others are VQGAN's (Esser et al. 2021), as VAR's authors say.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from vilau.errors import ConfigError
from vilau.models.conv_sizes import ConvTokenizerConfig
from vilau.models.conv_tokenizer import ConvTokenizer
from vilau.models.liquid.config import TokenizerConfig as OneGridConfig
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.vargpt.config import TokenizerConfig as ScalesConfig
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE
from vilau.training.adversarial import DiscriminatorConfig
from vilau.training.averaging import AverageConfig
from vilau.training.base import given
from vilau.training.optimizers import OptimizerConfig
from vilau.training.reconstruction import ReconstructionTraining
from vilau.types import LabelledImageBatch, TowerOutput


class TokenizerTraining(ReconstructionTraining):
    """Train a convolutional image tokenizer on images alone; see ``ReconstructionTraining`` for the loss.

    The product is a folder for ``LiquidPretraining`` or ``VargptPretraining``, and for every verb that takes a
    tokenizer.
    """

    family: ClassVar[type[ConvTokenizer]]

    def _start(
        self,
        config: ConvTokenizerConfig,
        weights: dict[str, float],
        optimizer: OptimizerConfig,
        discriminator: DiscriminatorConfig | None,
        average: AverageConfig | None,
    ) -> None:
        self.weights = weights
        discriminator = given(DiscriminatorConfig(), discriminator)
        family: Any = self.family
        self.tokenizer: ConvTokenizer = family(config)
        self.add_parts(discriminator, average, learning="gradient", entropy=False)
        self.remember(
            tokenizer=config,
            optimizer=optimizer,
            discriminator=discriminator,
            average=None if self.average is None else self.average.config,
            **weights,
        )

    @property
    def autoencoder(self) -> ConvTokenizer:
        """The image tokenizer."""
        return self.tokenizer

    def measure(self, batch: Any) -> tuple[TowerOutput, dict[str, Tensor]]:
        """See ``ReconstructionTraining``; raises ``ConfigError`` for labelled images, which no text is there for."""
        if isinstance(batch, LabelledImageBatch):
            raise ConfigError(
                "data.zero_shot gives images to classify, but this image tokenizer learns of no texts; write "
                "data.zero_shot: null."
            )
        return super().measure(batch)

    def blocks_to_shard(self) -> list[nn.Module]:
        """The levels of encoder and decoder."""
        return [*self.tokenizer.encoder.levels, *self.tokenizer.decoder.levels]


class VargptTokenizerTraining(TokenizerTraining):
    """Train VARGPT's image tokenizer, VAR's multi-scale VQ-VAE."""

    family = MultiScaleVQVAE

    def __init__(  # noqa: PLR0913 - a module's settings are its constructor
        self,
        tokenizer: ScalesConfig | None = None,
        reconstruction_weight: float = 1.0,
        l2_weight: float = 1.0,
        l1_weight: float = 0.0,
        perceptual_weight: float = 1.0,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        adversarial_weight: float = 0.0,
        discriminator: DiscriminatorConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        average: AverageConfig | None = None,
    ) -> None:
        """Start from random weights of the given sizes; the defaults are the published ones.

        ``commitment_weight`` is the published beta; L2, LPIPS and an adversary (``adversarial_weight``, VQGAN's is 0.8)
        are what the paper names without weights. Raises ``ConfigError`` for settings that contradict one another.
        """
        optimizer = given(OptimizerConfig(betas=(0.5, 0.9), warmup_share=0.02), optimizer)
        super().__init__(optimizer)
        weights = {
            "reconstruction_weight": reconstruction_weight,
            "l2_weight": l2_weight,
            "l1_weight": l1_weight,
            "perceptual_weight": perceptual_weight,
            "commitment_weight": commitment_weight,
            "codebook_weight": codebook_weight,
            "adversarial_weight": adversarial_weight,
        }
        config = given(ScalesConfig(), tokenizer)
        self._start(config, weights, optimizer, discriminator, average)


class LiquidTokenizerTraining(TokenizerTraining):
    """Train Liquid's image tokenizer, a VQGAN with one code a cell."""

    family = VQGAN

    def __init__(  # noqa: PLR0913 - a module's settings are its constructor
        self,
        tokenizer: OneGridConfig | None = None,
        reconstruction_weight: float = 1.0,
        l2_weight: float = 0.0,
        l1_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        adversarial_weight: float = 0.0,
        discriminator: DiscriminatorConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        average: AverageConfig | None = None,
    ) -> None:
        """Start from random weights of the given sizes; the defaults are those of Chameleon's and VQGAN's losses.

        Raises ``ConfigError`` for settings that contradict one another.
        """
        optimizer = given(OptimizerConfig(betas=(0.5, 0.9), warmup_share=0.02), optimizer)
        super().__init__(optimizer)
        weights = {
            "reconstruction_weight": reconstruction_weight,
            "l2_weight": l2_weight,
            "l1_weight": l1_weight,
            "perceptual_weight": perceptual_weight,
            "commitment_weight": commitment_weight,
            "codebook_weight": codebook_weight,
            "adversarial_weight": adversarial_weight,
        }
        config = given(OneGridConfig(), tokenizer)
        self._start(config, weights, optimizer, discriminator, average)
