"""timm ViTs of a few thousand weights under names of their own, and open_clip's text tower written plainly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor, nn

from tests.models import tiny
from vilau.models.encoders.vit import build_vit
from vilau.models.tokenizers import asset

TINY: dict[str, Any] = {
    "patch_size": 4,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 1.5,
}
SIGLIP: dict[str, Any] = {**TINY, "class_token": False, "global_pool": "map"}
HALF, PHOTOS = (0.5, 0.5, 0.5), (0.4, 0.5, 0.6)


def _made(
    name: str, given: dict[str, Any], usual: dict[str, Any], mean: tuple[float, ...]
) -> VisionTransformer:
    card = {
        "input_size": (3, tiny.SIDE, tiny.SIDE), "fixed_input_size": True, "num_classes": 0, "mean": mean, "std": mean,
        "classifier": "head", "first_conv": "patch_embed.proj",
    }  # fmt: skip
    given = {**usual, **given, "pretrained_cfg": card}
    given.pop("pretrained_cfg_overlay", None)
    return _create_vision_transformer(name, **given)


@register_model
def toyvit_siglip(pretrained: bool = False, **given: Any) -> VisionTransformer:
    return _made("toyvit_siglip", given, SIGLIP, HALF)


@register_model
def toyvit_siglip_tanh(pretrained: bool = False, **given: Any) -> VisionTransformer:
    return _made("toyvit_siglip_tanh", given, {**SIGLIP, "act_layer": "gelu_tanh"}, HALF)


@register_model
def toyvit_photos(pretrained: bool = False, **given: Any) -> VisionTransformer:
    """SigLIP's architecture, but for pixels of another mean."""
    return _made("toyvit_photos", given, SIGLIP, PHOTOS)


@register_model
def toyvit_mean(pretrained: bool = False, **given: Any) -> VisionTransformer:
    """The mean of its patches, no tokens: what a tower computes whole."""
    usual = {**TINY, "class_token": False, "global_pool": "avg", "init_values": 0.1}
    return _made("toyvit_mean", given, usual, PHOTOS)


@register_model
def toyvit_tokens(pretrained: bool = False, **given: Any) -> VisionTransformer:
    """A class token, registers, norms that SigLIP has not; positions for the patches alone."""
    usual = {**TINY, "reg_tokens": 2, "no_embed_class": True, "pre_norm": True, "qk_norm": True}
    return _made("toyvit_tokens", given, usual, HALF)


@register_model
def toyvit_class(pretrained: bool = False, **given: Any) -> VisionTransformer:
    """A class token with a position of its own, images of any size."""
    return _made("toyvit_class", given, {**TINY, "dynamic_img_size": True}, HALF)


def vit(name: str, seed: int = 0) -> VisionTransformer:
    """A ViT of random weights, biases and norms too."""
    torch.manual_seed(seed)
    made = build_vit(name).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return made


def file_of(made: nn.Module, path: Path) -> str:
    save_file(made.state_dict(), path)
    return str(path)


# ---------------------------------------------------------------------- open_clip


class TextBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, mlp), "c_proj": nn.Linear(mlp, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](y)


class OpenClip(nn.Module):
    """SigLIP as open_clip names its parts: a timm ViT, a text transformer without a mask, read at its end."""

    def __init__(self, name: str = "toyvit_siglip", *, width: int = 48, words: int = 0) -> None:
        super().__init__()
        words = words or tiny.sizes().vocab_size
        self.visual = nn.ModuleDict({"trunk": vit(name)})
        self.text = nn.Module()
        self.text.token_embedding = nn.Embedding(words, width)
        self.text.positional_embedding = nn.Parameter(torch.randn(12, width))
        self.text.transformer = nn.Module()
        self.text.transformer.resblocks = nn.ModuleList(TextBlock(width, 4, 64) for _ in range(2))
        self.text.ln_final = nn.LayerNorm(width, eps=1e-6)
        self.text.text_projection = nn.Linear(width, 32)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        self.logit_bias = nn.Parameter(torch.tensor(-7.0))
        with torch.no_grad():
            for weight in self.text.parameters():
                weight.add_(torch.randn_like(weight) * 0.05)

    def text_features(self, ids: Tensor) -> Tensor:
        x = self.text.token_embedding(ids) + self.text.positional_embedding
        for block in self.text.transformer.resblocks:
            x = block(x)
        return self.text.text_projection(self.text.ln_final(x)[:, -1])


def open_clip_folder(
    made: OpenClip, folder: Path, *, name: str = "toyvit_siglip", **text: Any
) -> Path:
    """A folder as timm publishes SigLIPs, with the drawn world's words."""
    shutil.copytree(asset("world-tokenizer"), folder)
    file_of(made, folder / "open_clip_model.safetensors")
    described = {
        "context_length": 12, "heads": 4, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}, **text,
    }  # fmt: skip
    vision = {"image_size": tiny.SIDE, "timm_model_name": name}
    config = {"model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": described}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
