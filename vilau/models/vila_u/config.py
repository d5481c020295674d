"""Sizes of VILA-U. Defaults are the published 256-pixel model (reference: VILA-U sections 3 and 4)."""

from dataclasses import asdict, dataclass, field
from math import gcd
from typing import Any, Literal

from vilau.errors import ConfigError
from vilau.models.sizes import SiglipSizes


@dataclass
class QuantizerConfig:
    """Residual quantiser (``ResidualQuantizer`` says more); the defaults are the published one's."""

    depth: int = 4
    codebook_size: int = 16384
    decay: float = 0.99
    restart_unused_codes: bool = True
    search: Literal["float32", "published"] = "float32"
    """``published`` searches and sums in the tower's dtype, as the bfloat16 release does."""
    shared_codebook: bool = True
    """One codebook for all depths, or one for each."""
    learning: Literal["ema", "gradient"] = "ema"
    """Codes follow the averages of their vectors, or the gradient of the codebook loss."""
    update: Literal["per_depth", "per_step"] = "per_depth"
    """When a shared codebook learns by averages: after every depth, or once from all of them."""
    initialisation: Literal["normal", "data"] = "normal"
    """Codes start from N(0, 1), or from residuals of the first training batch."""
    entropy: bool = False
    """Compute the entropy loss: sure choices of codes, all codes in use."""
    entropy_temperature: float = 0.5
    """Softness of the choices it is computed from; see ``code_entropy``."""

    def __post_init__(self) -> None:
        for key in ("depth", "codebook_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"quantizer.{key} is {getattr(self, key)}; write 1 or more.")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"quantizer.decay is {self.decay}; write 0 or more, below 1.")
        if not self.entropy_temperature > 0:
            raise ConfigError(
                f"quantizer.entropy_temperature is {self.entropy_temperature}; write more than 0."
            )
        for key, choices in _QUANTIZER_CHOICES.items():
            if getattr(self, key) not in choices:
                raise ConfigError(
                    f"quantizer.{key} is {getattr(self, key)!r}; write {' or '.join(choices)}."
                )


_QUANTIZER_CHOICES = {
    "search": ("float32", "published"),
    "learning": ("ema", "gradient"),
    "update": ("per_depth", "per_step"),
    "initialisation": ("normal", "data"),
}


@dataclass
class DecoderConfig:
    """Pixel decoder (VQGAN's f16 by default: 128 channels, x1 x1 x2 x2 x4, finest first).

    ``kind: patch`` is not published: ``num_layers`` blocks of a transformer of width ``channels``, and a head with one
    hidden layer that writes each cell's ``output_patch``. It learns sharp reconstructions in hundreds of steps.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attention_grids: tuple[int, ...] = (16,)
    z_channels: int = 256
    latent_grid: int | None = None
    """Resize the quantised grid to this side first (24 for the 27x27 grid of the 384-pixel model)."""
    norm_groups: int = 32
    output_patch: int = 1
    """Pixels per side written by each cell of the finest level; 1 is the published decoder."""
    dropout: float = 0.0
    kind: Literal["conv", "patch"] = "conv"
    num_layers: int = 1
    """Of ``kind: patch``, like the next two."""
    num_heads: int = 4
    head_size: int = 768

    def __post_init__(self) -> None:
        if self.kind == "patch":
            self._check_patch()
            return
        if self.kind != "conv":
            raise ConfigError(f"decoder.kind is {self.kind!r}; write conv or patch.")
        for multiplier in self.multipliers:
            width = self.channels * multiplier
            if width % self.norm_groups:
                raise ConfigError(
                    f"decoder.norm_groups is {self.norm_groups}, which does not divide a level's "
                    f"{width} channels ({self.channels} x {multiplier}); write "
                    f"{gcd(width, self.norm_groups)}."
                )

    def _check_patch(self) -> None:
        if tuple(self.multipliers) != (1,):
            raise ConfigError(
                f"decoder.multipliers is {list(self.multipliers)}, but a decoder of kind patch has one level; write "
                "multipliers: [1] and the pixels per cell in output_patch."
            )
        if self.channels % self.num_heads:
            raise ConfigError(
                f"decoder.num_heads is {self.num_heads}, which does not divide decoder.channels {self.channels}; "
                f"write a divisor of {self.channels}."
            )


@dataclass
class HeadConfig:
    """Depth transformer; defaults are the published code's."""

    width: int = 2560
    num_layers: int = 6
    num_heads: int = 40
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(
                f"head.num_heads is {self.num_heads}, which does not divide head.width {self.width}; "
                f"write a divisor of {self.width}."
            )


@dataclass
class TowerConfig:
    """Everything a vision tower is built from; ``siglip`` holds the fields of ``SiglipSizes``."""

    siglip: dict[str, Any] = field(default_factory=dict)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dicts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "TowerConfig":
        """Rebuild from ``to_dict`` (JSON turns tuples into lists; they become tuples again)."""
        decoder: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["decoder"].items()
        }
        return cls(
            siglip=asdict(SiglipSizes(**data["siglip"])),
            quantizer=QuantizerConfig(**data["quantizer"]),
            decoder=DecoderConfig(**decoder),
        )
