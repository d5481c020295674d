"""Training the image tokenizers of Liquid and VARGPT: VQGAN's losses, around codes on one grid or over scales.

VARGPT section 3.1 takes VAR's, whose training code was never released; its quantiser's losses were (reference A1.4),
the others are VQGAN's (Esser et al. 2021), as VAR's authors say.
"""

from typing import Any, ClassVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

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

    def __init__(
        self,
        tokenizer: ConvTokenizerConfig,
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
        """Start from random weights of the given sizes.

        Raises ``ConfigError`` for settings that contradict one another.
        """
        optimizer = given(OptimizerConfig(betas=(0.5, 0.9), warmup_share=0.02), optimizer)
        super().__init__(optimizer)
        self.weights = {
            "reconstruction_weight": reconstruction_weight,
            "l2_weight": l2_weight,
            "l1_weight": l1_weight,
            "perceptual_weight": perceptual_weight,
            "commitment_weight": commitment_weight,
            "codebook_weight": codebook_weight,
            "adversarial_weight": adversarial_weight,
        }
        discriminator = given(DiscriminatorConfig(), discriminator)
        family: Any = self.family
        self.tokenizer: ConvTokenizer = family(tokenizer)
        self.add_parts(discriminator, average, learning="gradient", entropy=False)
        self.remember(
            tokenizer=tokenizer,
            optimizer=optimizer,
            discriminator=discriminator,
            average=None if self.average is None else self.average.config,
            **self.weights,
        )

    @property
    def autoencoder(self) -> ConvTokenizer:
        """The image tokenizer."""
        return self.tokenizer

    def measure(self, batch: Any) -> tuple[TowerOutput | None, dict[str, Tensor]]:
        """See ``ReconstructionTraining``; labelled images, which no text is learnt for, are passed over with a word."""
        if isinstance(batch, LabelledImageBatch):
            rank_zero_warn(
                "data.zero_shot gives images to classify, but this image tokenizer learns of no texts and passes them "
                "over; write data.zero_shot: null."
            )
            return None, {}
        return super().measure(batch)

    def blocks_to_shard(self) -> list[nn.Module]:
        """The levels of encoder and decoder."""
        return [*self.tokenizer.encoder.levels, *self.tokenizer.decoder.levels]


class VargptTokenizerTraining(TokenizerTraining):
    """Train VARGPT's image tokenizer, VAR's multi-scale VQ-VAE.

    The default sizes, and the weights of commitment (the published beta) and codes, are published; L2, LPIPS and an
    adversary (``adversarial_weight``; VQGAN's is 0.8) are what the paper names, without weights.
    """

    family = MultiScaleVQVAE

    def __init__(self, tokenizer: ScalesConfig | None = None, **settings: Any) -> None:
        """See ``TokenizerTraining``; without sizes the published ones."""
        super().__init__(given(ScalesConfig(), tokenizer), **settings)


class LiquidTokenizerTraining(TokenizerTraining):
    """Train Liquid's image tokenizer, a VQGAN with one code a cell; sizes are Chameleon's, losses VQGAN's."""

    family = VQGAN

    def __init__(
        self,
        tokenizer: OneGridConfig | None = None,
        l2_weight: float = 0.0,
        l1_weight: float = 1.0,
        **settings: Any,
    ) -> None:
        """See ``TokenizerTraining``; without sizes the published ones."""
        tokenizer = given(OneGridConfig(), tokenizer)
        super().__init__(tokenizer, l2_weight=l2_weight, l1_weight=l1_weight, **settings)
