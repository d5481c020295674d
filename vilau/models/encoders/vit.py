"""Any timm ViT in the place of SigLIP's: taken apart into the same four parts that a tower reads.

B images, P patches, C width, E width of the features compared with texts.
"""

from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, global_pool_nlc
from torch import Tensor, nn
from transformers import SiglipTextModel

from vilau.errors import CheckpointError, ConfigError
from vilau.layers.attention import attention_name
from vilau.models.siglip import transformers_config
from vilau.models.sizes import SiglipSizes


class ViTEmbeddings(nn.Module):
    """Patches, class and register tokens, positions."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.patch_embed = vit.patch_embed
        self.cls_token = vit.cls_token
        self.reg_token = vit.reg_token
        self.pos_embed = vit.pos_embed
        self.norm_pre = vit.norm_pre
        self.positions_for_patches_only = vit.no_embed_class
        # Towers give images in [-1, 1]; timm's weights were trained on others.
        mean, std = (torch.tensor(card(vit)[key]) for key in ("mean", "std"))
        self.shift: Tensor
        self.stretch: Tensor
        self.register_buffer("shift", ((0.5 - mean) / std).view(3, 1, 1), persistent=False)
        self.register_buffer("stretch", (0.5 / std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images in [-1, 1] to ``(B, tokens + P, C)``."""
        dtype = self.patch_embed.proj.weight.dtype
        x = self.patch_embed((images * self.stretch + self.shift).to(dtype))
        x = x.flatten(1, -2)  # some keep rows and columns apart
        tokens = [
            t.expand(len(x), -1, -1) for t in (self.cls_token, self.reg_token) if t is not None
        ]
        if self.pos_embed is not None and self.positions_for_patches_only:
            x = x + self.pos_embed
        x = torch.cat([*tokens, x], dim=1)
        if self.pos_embed is not None and not self.positions_for_patches_only:
            x = x + self.pos_embed
        return self.norm_pre(x)


class ViTBlock(nn.Module):
    """A timm block that is called as SigLIP's are; ``drop`` takes the first tokens off what it returns."""

    def __init__(self, block: nn.Module, *, drop: int = 0) -> None:
        super().__init__()
        self.block = block
        self.drop = drop

    def forward(self, hidden: Tensor, attention_mask: None = None) -> Tensor:
        """Map ``(B, T, C)`` to ``(B, T - drop, C)``."""
        return self.block(hidden)[:, self.drop :]


class ViTPooling(nn.Module):
    """One feature of all patches: attention pooling where the ViT has it, else their mean.

    A class token cannot be read here: only patches become codes. Where texts have another width, a linear map
    that is learnt follows.
    """

    def __init__(self, vit: VisionTransformer, embed_width: int) -> None:
        super().__init__()
        self.kind = "avg" if vit.global_pool in ("token", "") else vit.global_pool
        self.attn_pool = vit.attn_pool
        self.fc_norm = vit.fc_norm
        same = embed_width == vit.embed_dim
        self.projection = nn.Identity() if same else nn.Linear(vit.embed_dim, embed_width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map ``(B, P, C)`` to ``(B, E)``."""
        if self.attn_pool is not None:
            pooled = self.attn_pool(hidden)
        else:
            pooled = global_pool_nlc(hidden, pool_type=self.kind, num_prefix_tokens=0)
        return self.projection(self.fc_norm(pooled))


class ViTBlocks(nn.Module):
    """The blocks. From the last but one on there are patches alone: what is quantised and read back."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        last = len(vit.blocks) - 2
        self.layers = nn.ModuleList(
            ViTBlock(block, drop=vit.num_prefix_tokens if number == last else 0)
            for number, block in enumerate(vit.blocks)
        )


class ViTVision(nn.Module):
    """A timm ViT in the parts of transformers' ``SiglipVisionModel``, under their names."""

    def __init__(self, vit: VisionTransformer, embed_width: int) -> None:
        super().__init__()
        self.embeddings = ViTEmbeddings(vit)
        self.encoder = ViTBlocks(vit)
        self.post_layernorm = vit.norm
        self.head = ViTPooling(vit, embed_width)


class ViTSiglip(nn.Module):
    """A timm ViT beside SigLIP's text tower, in the parts of transformers' ``SiglipModel``."""

    def __init__(
        self, sizes: SiglipSizes, *, logit_scale: float = 2.3026, logit_bias: float = -10.0
    ) -> None:
        super().__init__()
        vit = build_vit(sizes.vision, sizes.image_size)
        if (found := vit.embed_dim) != sizes.hidden_size or len(vit.blocks) != sizes.num_layers:
            raise ConfigError(
                f"siglip.hidden_size and siglip.num_layers are {sizes.hidden_size} and {sizes.num_layers}, but "
                f"timm's {sizes.vision} has {found} and {len(vit.blocks)}; write these."
            )
        self.vision_model = ViTVision(vit, sizes.embed_width)
        config: Any = transformers_config(sizes).text_config
        config._attn_implementation = attention_name(sizes.attention)
        self.text_model = SiglipTextModel(config)
        self.logit_scale = nn.Parameter(torch.tensor([logit_scale]))
        self.logit_bias = nn.Parameter(torch.tensor([logit_bias]))

    def set_attn_implementation(self, name: str) -> None:
        """Choose the text tower's attention kernel; timm's ViT has its own."""
        self.text_model.set_attn_implementation(name)


def card(vit: VisionTransformer) -> dict[str, Any]:
    """Return what timm says of the weights of a name: pixels they expect, where they lie."""
    found: Any = vit.pretrained_cfg
    return found


def build_vit(name: str, image_size: int | None = None) -> VisionTransformer:
    """Build timm's ViT of this name, from random weights and without its classifier.

    Raises ``CheckpointError`` for names that timm does not know, and for models that are no plain ViT.
    """

    def made(**settings: Any) -> Any:
        return timm.create_model(name, pretrained=False, num_classes=0, **settings)

    try:
        with torch.device("meta"):
            vit = made()
        if type(vit) is VisionTransformer:
            return made() if image_size is None else made(img_size=image_size)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"timm cannot build {name} ({reason}); write a name that timm.list_models('vit*') lists."
        ) from None
    raise CheckpointError(
        f"timm's {name} is a {type(vit).__name__}, but images can be encoded by its VisionTransformer alone, "
        "whose blocks read and write one sequence of patches; write a name such as vit_base_patch16_siglip_224."
    )
