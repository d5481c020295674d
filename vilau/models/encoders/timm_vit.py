"""timm's ViTs by name: their sizes, their weights on this machine, and whether SigLIP's own layout holds them."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from timm.layers import LayerNorm, Mlp
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from transformers import SiglipVisionModel

from vilau.errors import CheckpointError
from vilau.models.encoders.files import ENDINGS, read_tensor_file
from vilau.models.encoders.layouts import TRUNK, siglip_tensors, vit_tensors
from vilau.models.encoders.names import OPEN_CLIP_FILES, TimmSource
from vilau.models.encoders.vit import build_vit, card
from vilau.models.encoders.weights import Weights
from vilau.models.hub_cache import cached_folder
from vilau.models.siglip import transformers_config
from vilau.models.sizes import SIGLIP, SiglipSizes
from vilau.models.storage import building_on_meta
from vilau.models.weight_files import compare

CACHED = ("model.safetensors", "pytorch_model.bin", *OPEN_CLIP_FILES)
_ACTIVATIONS: dict[str, str] = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}
CLASSIFIER = "head."


def read_timm(
    source: TimmSource, image_size: int | None = None
) -> tuple[Weights, dict[str, Tensor]]:
    """Return an image encoder, and what else its file holds: open_clip's text tower, under open_clip's names.

    ``image_size`` is that of the weights, where it is not the name's usual one. On the meta device no weights are
    looked for in caches; a file that is named must be there all the same. Raises ``CheckpointError`` for an unknown
    name, and for weights that are nowhere, broken or another model's.
    """
    with torch.device("meta"):
        vit = build_vit(source.name, image_size)
    sizes = vit_sizes(vit, source.name)
    label = f"timm/{source.name}"
    if source.file is not None and not source.file.is_file():
        raise CheckpointError(
            f"{label}:{source.file} names weights that are not there; put the file there, or write its path."
        )
    if building_on_meta() and source.file is None:
        return Weights(sizes, {}, label, has_text=False), {}
    file = source.file or _cached_file(vit, source.name)
    tensors = read_tensor_file(file)
    inside = any(name.startswith(TRUNK) for name in tensors)
    trunk = {
        name.removeprefix(TRUNK): tensor
        for name, tensor in tensors.items()
        if name.startswith(TRUNK) or not inside
    }
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith(CLASSIFIER)}
    compare(vit.state_dict(), trunk, file)
    rest = {n: t for n, t in tensors.items() if inside and not n.startswith("visual.")}
    if sizes.vision == SIGLIP:
        placed = siglip_tensors({f"{TRUNK}{name}": tensor for name, tensor in trunk.items()})
    else:
        placed = vit_tensors(trunk)
    return Weights(sizes, placed, str(file), has_text=False), rest


def vit_sizes(vit: VisionTransformer, name: str) -> SiglipSizes:
    """Return the sizes of a ViT; those of a text tower beside it are the ViT's, too.

    ``vision`` is ``siglip`` where SigLIP's own layout holds it exactly, else timm's name with its tag. Raises
    ``CheckpointError`` for images or patches that are not square.
    """
    height, width = vit.patch_embed.img_size
    patch = vit.patch_embed.patch_size
    if height != width or patch[0] != patch[1]:
        raise CheckpointError(
            f"timm's {name} reads images of {height} x {width} pixels in patches of {patch[0]} x {patch[1]}, but "
            "codes lie on a square grid of square patches; write another name."
        )
    fc1 = getattr(getattr(vit.blocks[0], "mlp", None), "fc1", None)
    mlp = fc1.out_features if isinstance(fc1, nn.Linear) else 4 * vit.embed_dim
    heads: Any = next(m.num_heads for m in vit.blocks[0].modules() if hasattr(m, "num_heads"))
    activation = type(getattr(getattr(vit.blocks[0], "mlp", None), "act", None)).__name__
    tag = card(vit).get("tag")
    full = name if "." in name or not tag else f"{name}.{tag}"
    sizes = SiglipSizes(
        image_size=height,
        patch_size=patch[0],
        hidden_size=vit.embed_dim,
        num_layers=len(vit.blocks),
        num_heads=heads,
        mlp_size=mlp,
        text_layers=len(vit.blocks),
        text_heads=heads,
        text_mlp_size=mlp,
        activation=_ACTIVATIONS.get(activation, "gelu"),
    )
    return sizes if is_siglip(vit, sizes) else replace(sizes, vision=full)


def is_siglip(vit: VisionTransformer, sizes: SiglipSizes) -> bool:
    """Tell whether transformers' ``SiglipVisionModel`` of these sizes computes the same from the same weights."""
    block = vit.blocks[0]
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return False
    mean_std = (*card(vit)["mean"], *card(vit)["std"])
    norms = [m for m in vit.modules() if type(m).__name__.endswith("Norm")]
    pool = vit.attn_pool
    return (
        type(block.mlp.act).__name__ in _ACTIVATIONS
        and all(value == 0.5 for value in mean_std)
        and all(type(norm) is LayerNorm and norm.eps == 1e-6 for norm in norms)
        and pool is not None
        and getattr(pool, "num_heads", None) == block.attn.num_heads
        and _fits_siglip(vit, sizes)
    )


def _fits_siglip(vit: VisionTransformer, sizes: SiglipSizes) -> bool:
    """Tell whether the tensors are those of a ``SiglipVisionModel``, by name and shape."""
    found = siglip_tensors({f"{TRUNK}{name}": t for name, t in vit.state_dict().items()})
    config: Any = transformers_config(sizes).vision_config
    with torch.device("meta"):
        own = SiglipVisionModel(config).state_dict()
    expected = {f"vision_model.{name}": tensor.shape for name, tensor in own.items()}
    return {name: tensor.shape for name, tensor in found.items()} == expected


def _cached_file(vit: VisionTransformer, name: str) -> Path:
    """Return the file that timm or its hub downloaded before; the network is never asked."""
    pretrained = card(vit)
    hub, url = pretrained.get("hf_hub_id"), pretrained.get("url") or ""
    wanted = [*filter(None, [pretrained.get("hf_hub_filename")]), *CACHED]
    folder = cached_folder(hub, *wanted) if hub else None
    if folder is not None:
        return next(folder / file for file in wanted if (folder / file).is_file())
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    file = checkpoints / Path(urlparse(url).path).name
    if file.suffix in ENDINGS and file.is_file():
        return file
    where = f"the hub cache (as {hub})" if hub else str(checkpoints)
    raise CheckpointError(
        f"timm's weights {name} are not in {where}; download {CACHED[0]} on a machine with a network, put it "
        f"anywhere and write timm/{name}:<its path>."
    )
