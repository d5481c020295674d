"""Sizes of the pretrained parts, free of torch: planning a study reads them too."""

from dataclasses import dataclass, field, replace
from typing import Any

from vilau.errors import ConfigError

SIGLIP = "siglip"
"""The ViT of SigLIP itself, which transformers builds."""
WORLD_SIGLIP = "world-siglip"
WORLD_TOKENIZER = "world-tokenizer"

SPECIAL_TOKENS = ("<im_start>", "<im_end>", "<vi_start>", "<vi_end>")
"""Added after the text vocabulary in this order, as published."""
IMAGE_TOKENIZER_FOLDER = "image_tokenizer"
"""Where a saved Liquid or VARGPT keeps the tokenizer of its images, which ``vilau.load_tokenizer`` opens."""


@dataclass
class SiglipSizes:
    """Sizes of a SigLIP model; the defaults are google/siglip-large-patch16-256."""

    image_size: int = 256
    patch_size: int = 16
    hidden_size: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    mlp_size: int = 4096
    text_layers: int = 24
    text_heads: int = 16
    text_mlp_size: int = 4096
    text_length: int = 64
    vocab_size: int = 32000
    activation: str = "gelu_pytorch_tanh"
    tokenizer: str = "google/siglip-large-patch16-256"
    attention: str = "sdpa"
    """transformers' attention kernel, or ``lean`` (ours, faster for small models on a CPU)."""
    vision: str = SIGLIP
    """``siglip``, or timm's name of another ViT that encodes the images."""
    text_hidden_size: int = 0
    """Width of the text tower; 0: ``hidden_size``."""
    text_activation: str = ""
    """Activation of the text tower; empty: ``activation``."""
    embed_size: int = 0
    """Width of the features that images and texts are compared by; 0: ``hidden_size``."""

    def __post_init__(self) -> None:
        self._forget_defaults()
        for key, width in (("num_heads", self.hidden_size), ("text_heads", self.text_width)):
            if width % getattr(self, key):
                name = "hidden_size" if width == self.hidden_size else "text_hidden_size"
                raise ConfigError(
                    f"siglip.{key} is {getattr(self, key)}, which does not divide siglip.{name} "
                    f"{width}; write a divisor of {width}."
                )
        if self.vision == SIGLIP and self.embed_size:
            raise ConfigError(
                f"siglip.embed_size is {self.embed_size}, but SigLIP's image features are {self.hidden_size} "
                f"wide; write siglip.embed_size: {self.hidden_size}."
            )
        if self.num_layers < 2:
            raise ConfigError(
                f"siglip.num_layers is {self.num_layers}, but the tower quantises after the last "
                "block but one; write 2 or more."
            )

    def _forget_defaults(self) -> None:
        """Keep 0 and nothing for what is as usual, so that equal sizes are equal."""
        for key in ("text_hidden_size", "embed_size"):
            if getattr(self, key) == self.hidden_size:
                setattr(self, key, 0)
        if self.text_activation == self.activation:
            self.text_activation = ""

    @property
    def text_width(self) -> int:
        """Width of the text tower."""
        return self.text_hidden_size or self.hidden_size

    @property
    def embed_width(self) -> int:
        """Width of the features that images and texts are compared by."""
        return self.embed_size or self.hidden_size

    @property
    def grid(self) -> int:
        """Cells along each side of the code grid (patches of 14 pixels drop the border of 384)."""
        return self.image_size // self.patch_size

    def check_border(self) -> None:
        """Raise ``ConfigError`` where patches leave out a border, which no new model needs."""
        if self.image_size % self.patch_size:
            low = self.grid * self.patch_size
            raise ConfigError(
                f"siglip.image_size is {self.image_size}, which {self.patch_size}-pixel patches do not "
                f"divide; write {max(low, self.patch_size)} or {low + self.patch_size}."
            )


def with_text(image: SiglipSizes, text: SiglipSizes) -> SiglipSizes:
    """Return the sizes of one's image encoder beside the other's text tower."""
    return replace(
        image,
        text_layers=text.text_layers,
        text_heads=text.text_heads,
        text_mlp_size=text.text_mlp_size,
        text_length=text.text_length,
        vocab_size=text.vocab_size,
        tokenizer=text.tokenizer,
        text_hidden_size=text.text_width,
        text_activation=text.text_activation or text.activation,
        embed_size=text.embed_width,
    )


def text_for(image: SiglipSizes, text: SiglipSizes | None) -> SiglipSizes:
    """Return the sizes of a text tower, ``text``'s or as the image encoder's, with features as wide as images'."""
    chosen = text or image
    return replace(
        chosen,
        hidden_size=image.hidden_size,
        num_heads=image.num_heads,
        text_hidden_size=chosen.text_width,
        text_activation=chosen.text_activation or chosen.activation,
        vision=SIGLIP,
        embed_size=0,
    )


_SO400M = {
    "image_size": 384, "patch_size": 14, "hidden_size": 1152, "num_layers": 27, "mlp_size": 4304,
    "text_layers": 27, "text_mlp_size": 4304, "tokenizer": "google/siglip-so400m-patch14-384",
}  # fmt: skip
PUBLISHED_SIGLIPS: dict[str, SiglipSizes] = {
    "google/siglip-large-patch16-256": SiglipSizes(),
    "google/siglip-so400m-patch14-384": SiglipSizes(**_SO400M),  # type: ignore[arg-type]
}
"""What is needed to build (on the meta device) without the network."""


ARCHITECTURES = ("llama", "gemma")


@dataclass
class LanguageConfig:
    """A language model: ``pretrained`` weights, or a random one of these sizes (defaults: the tiny one)."""

    pretrained: str | None = None
    """Folder or hub name of LLaMA or Gemma weights; None starts from random weights of the sizes below."""
    tokenizer: str = WORLD_TOKENIZER
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    mlp_size: int = 384
    max_length: int = 1024
    vocab_size: int = 0
    """Text tokens including added ones; 0 reads it off the tokenizer."""
    rope_scaling_factor: float = 1.0
    """Linear scaling of rotary positions; VILA-U's release uses 2 (8192 of LLaMA-2's 4096)."""
    attention: str = "sdpa"
    """transformers' attention kernel, or ``lean`` (ours, faster for small models on a CPU)."""
    tie_embeddings: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of transformers' config, e.g. rope_theta or num_key_value_heads."""
    architecture: str = "llama"
    """``llama``, or ``gemma``; of pretrained weights it is read off them."""

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"language.architecture is {self.architecture!r}; write {' or '.join(ARCHITECTURES)}."
            )
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"language.num_heads is {self.num_heads}, which does not divide language.hidden_size "
                f"{self.hidden_size}; write a divisor of {self.hidden_size}."
            )

    @property
    def head_width(self) -> int:
        """Of an attention head: its own where ``extra`` says so (Gemma), else a share of ``hidden_size``."""
        return int(self.extra.get("head_dim") or self.hidden_size // self.num_heads)

    @property
    def key_value_width(self) -> int:
        """Of a token's keys, and of its values, in one layer."""
        return self.head_width * int(self.extra.get("num_key_value_heads", self.num_heads))


PUBLISHED_LANGUAGES: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": {
        "hidden_size": 4096, "num_layers": 32, "num_heads": 32, "mlp_size": 11008, "vocab_size": 32000,
    },
    "princeton-nlp/Sheared-LLaMA-1.3B": {
        "hidden_size": 2048, "num_layers": 24, "num_heads": 16, "mlp_size": 5504, "vocab_size": 32000,
    },
    "meta-llama/Llama-3.2-1B": {
        "hidden_size": 2048, "num_layers": 16, "num_heads": 32, "mlp_size": 8192, "vocab_size": 128256,
        "tie_embeddings": True, "extra": {"num_key_value_heads": 8, "rope_theta": 500000.0},
    },
    "google/gemma-7b": {
        "hidden_size": 3072, "num_layers": 28, "num_heads": 16, "mlp_size": 24576, "vocab_size": 256000,
        "architecture": "gemma", "tie_embeddings": True, "extra": {"head_dim": 256},
    },
}  # fmt: skip
"""What is needed to build (on the meta device) without the network."""
