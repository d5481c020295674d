"""Tiny models, documents and batches that the model and training tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vilau.models.causal.model import CausalModel
from vilau.models.liquid.config import TokenizerConfig
from vilau.models.liquid.model import Liquid
from vilau.models.liquid.tokenizer import VQGAN
from vilau.models.sequence.config import PromptConfig
from vilau.models.sizes import WORLD_TOKENIZER, LanguageConfig, SiglipSizes
from vilau.models.tokenizers import load_tokenizer
from vilau.models.vargpt import config as scales
from vilau.models.vargpt.model import Vargpt
from vilau.models.vargpt.tokenizer import MultiScaleVQVAE
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.model import VilaU
from vilau.models.vila_u.tower import VisionTower
from vilau.training.clip import ClipPretraining
from vilau.training.optimizers import OptimizerConfig
from vilau.types import Document, ImageSegment, ImageTextBatch, MultimodalBatch, TextSegment

SIDE = 16
"""Pixels per side of every test image; 4 x 4 cells."""


def sizes(**changes: Any) -> SiglipSizes:
    """A SigLIP of 16-pixel images and 4-pixel patches."""
    settings: dict[str, Any] = {
        "image_size": SIDE, "patch_size": 4, "hidden_size": 32, "num_layers": 3, "num_heads": 2,
        "mlp_size": 48, "text_layers": 1, "text_heads": 2, "text_mlp_size": 48, "text_length": 12,
        "vocab_size": len(load_tokenizer(WORLD_TOKENIZER)), "tokenizer": WORLD_TOKENIZER,
    }  # fmt: skip
    return SiglipSizes(**{**settings, **changes})


def quantizer(**changes: Any) -> QuantizerConfig:
    return QuantizerConfig(**{"depth": 3, "codebook_size": 24, **changes})


def decoder(**changes: Any) -> DecoderConfig:
    settings: dict[str, Any] = {
        "channels": 8, "multipliers": (1, 1, 2), "num_res_blocks": 1, "attention_grids": (4,),
        "z_channels": 8, "norm_groups": 4,
    }  # fmt: skip
    return DecoderConfig(**{**settings, **changes})


def tower(seed: int = 0, depth: int = 3, **changes: Any) -> VisionTower:
    """A random tower in evaluation mode, with a codebook that its features really use."""
    torch.manual_seed(seed)
    siglip = sizes(**changes)
    built = VisionTower(TowerConfig(dict(vars(siglip)), quantizer(depth=depth), decoder()))
    with torch.no_grad():
        features = built.features(torch.rand(8, 3, SIDE, SIDE) * 2 - 1).flatten(0, 1)
        book = built.quantizer.codebook
        book.weight.copy_(features[torch.randperm(len(features))[: len(book.weight)]])
        book.weight[len(book.weight) // 2 :] *= 0.2  # fine codes for the later depths
        book.embed_ema.copy_(book.weight)
        book.cluster_size_ema.fill_(1.0)
    return built.eval()


def language(**changes: Any) -> LanguageConfig:
    settings = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "mlp_size": 48}
    return LanguageConfig(**{**settings, **changes})


def head(**changes: Any) -> HeadConfig:
    return HeadConfig(**{"width": 32, "num_layers": 2, "num_heads": 2, "dropout": 0.0, **changes})


PROMPT = PromptConfig(system="")


def vila_u(seed: int = 0, prompt: PromptConfig = PROMPT, **changes: Any) -> VilaU:
    """A random model in evaluation mode."""
    torch.manual_seed(seed)
    return VilaU.start(tower(seed), language(**changes), head(), prompt).eval()


def vqgan(seed: int = 0, **changes: Any) -> VQGAN:
    """A random image tokenizer of one code a position, with codes that its features really use."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "image_size": SIDE, "channels": 8, "multipliers": (1, 1, 2), "num_res_blocks": 1, "z_channels": 8,
        "embed_dim": 8, "codebook_size": 24, "norm_groups": 4,
    }  # fmt: skip
    built = VQGAN(TokenizerConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        pictures = torch.rand(8, 3, built.spec.image_size, built.spec.image_size) * 2 - 1
        found = built.quant_conv(built.encoder(pictures)).permute(0, 2, 3, 1).flatten(0, 2)
        built.quantizer.codebook.weight.copy_(
            found[torch.randperm(len(found))[: len(built.quantizer.codebook.weight)]]
        )
    return built


def liquid(seed: int = 0, prompt: PromptConfig = PROMPT, **changes: Any) -> Liquid:
    """A random model in evaluation mode."""
    torch.manual_seed(seed)
    return Liquid.start(vqgan(seed), language(**changes), prompt).eval()


def over_scales(seed: int = 0, **changes: Any) -> MultiScaleVQVAE:
    """A random image tokenizer over scales of 1, 4 and 16 cells, with codes that its features really use."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "image_size": SIDE, "scales": (1, 2, 4), "channels": 8, "multipliers": (1, 1, 2), "num_res_blocks": 1,
        "embed_dim": 8, "codebook_size": 24, "norm_groups": 4,
    }  # fmt: skip
    built = MultiScaleVQVAE(scales.TokenizerConfig(**{**settings, **changes})).eval()
    with torch.no_grad():
        pictures = torch.rand(8, 3, built.spec.image_size, built.spec.image_size) * 2 - 1
        found = built.quant_conv(built.encoder(pictures)).permute(0, 2, 3, 1).flatten(0, 2)
        book = built.quantizer.codebook.weight
        book.copy_(found[torch.randperm(len(found))[: len(book)]])
        book[len(book) // 2 :] *= 0.3  # fine codes for the later scales
    return built


def picture_reader(**changes: Any) -> scales.ReaderConfig:
    """A random CLIP of 12-pixel images and 4-pixel patches: 9 places, where a drawn image has 21."""
    settings: dict[str, Any] = {
        "pretrained": None, "image_size": 12, "patch_size": 4, "hidden_size": 16, "num_layers": 3, "num_heads": 2,
        "mlp_size": 24,
    }  # fmt: skip
    return scales.ReaderConfig(**{**settings, **changes})


def scale_decoder(**changes: Any) -> scales.DecoderConfig:
    settings = {"num_layers": 2, "width": 32, "num_heads": 2, "mlp_ratio": 2, "drop_path": 0.0}
    return scales.DecoderConfig(**{**settings, "gate_init": 0.5, **changes})


def vargpt(
    seed: int = 0, prompt: PromptConfig = PROMPT, unconditional: str = "prompt", **changes: Any
) -> Vargpt:
    """A random model in evaluation mode."""
    torch.manual_seed(seed)
    parts = over_scales(seed), language(**changes), picture_reader(), scale_decoder(), prompt
    return Vargpt.start(*parts, unconditional=unconditional).eval()


def code_logits(model: CausalModel, hidden: Tensor, codes: Tensor) -> Tensor:
    """Logits ``(B, P, D, K)`` of the codes that states ``(B, P, E)`` predict, the codes ``(B, P, D)`` given."""
    if isinstance(model, VilaU):
        return model.head(hidden, codes)
    if isinstance(model, Vargpt):
        return model.code_logits(hidden)[:, :, None]
    assert isinstance(model, Liquid)
    return model.language.lm_head(hidden)[:, :, None, model.code_offset :]


def outspoken(model: CausalModel) -> CausalModel:
    """The model with pictures that depend on the prompt, unlike a freshly made one's."""
    with torch.no_grad():
        model.language.model.embed_tokens.weight *= 3
        if isinstance(model, VilaU):
            model.head.classifier.weight *= 20
            model.head.hidden_projection.weight *= 3
        elif isinstance(model, Liquid):
            model.language.lm_head.weight[model.code_offset :] *= 20
        elif isinstance(model, Vargpt):
            model.decoder.classifier.weight *= 100
            for parameter in model.to_language[-1].parameters():  # cells listen to words
                parameter *= 0.1
    return model


FAMILIES: dict[str, Callable[..., CausalModel]] = {
    "vila_u": vila_u,
    "liquid": liquid,
    "vargpt": vargpt,
}
NEXT_TOKEN = ("vila_u", "liquid")
"""Families that draw position after position, the state at one predicting the codes at the next."""


def images(count: int, seed: int = 0) -> Tensor:
    """Smooth random uint8 images, unlike one another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, size=SIDE) * 255).to(torch.uint8)


def pairs(count: int = 4, seed: int = 0) -> ImageTextBatch:
    texts = ["a red circle", "a blue square", "a green star left of a red circle", "two squares"]
    return ImageTextBatch(images(count, seed), [texts[i % len(texts)] for i in range(count)])


def drawing(index: int, text: str = "a red circle") -> Document:
    return Document((TextSegment(text), ImageSegment(index, target=True)))


def caption(index: int, text: str = "a blue square") -> Document:
    return Document(
        (ImageSegment(index), TextSegment("describe it"), TextSegment(text, target=True))
    )


def multimodal(seed: int = 0) -> MultimodalBatch:
    """One image to draw, one to describe, and one conversation in words alone."""
    words = Document((TextSegment("how many squares"), TextSegment("three", target=True)))
    return MultimodalBatch(images(2, seed), [drawing(0), caption(1), words])


def siglip_folder(folder: Path, seed: int = 0, **changes: Any) -> str:
    """A SigLIP saved in the kit's own layout, by the module that makes them."""
    torch.manual_seed(seed)
    ClipPretraining(siglip=sizes(**changes)).export(str(folder))
    return str(folder)


def tower_folder(folder: Path, seed: int = 0) -> str:
    tower(seed).save(folder)
    return str(folder)


def optimizer(**changes: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"learning_rate": 1e-3, "warmup_share": 0.0, **changes})
