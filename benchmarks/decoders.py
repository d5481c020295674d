"""How soon does a decoder reconstruct shapes? The published convolutional one and the patch decoder, side by side.

Both learn from the same frozen codes of one tower for the same CPU time, on one core; then a judge reads validation
scenes out of their reconstructions.

    python benchmarks/decoders.py runs/ablate_cfg/model/drawing_tower/model --seconds 60
"""

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

import vilau
from vilau.callbacks.reconstructions import Reconstructions
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.vila_u.config import DecoderConfig
from vilau.models.vila_u.tower import VisionTower, build_decoder
from vilau.world.render import render
from vilau.world.scene import scene_at

DECODERS = {
    "conv": DecoderConfig(
        channels=128, multipliers=(1,), num_res_blocks=0, attention_grids=(8,), z_channels=96,
        norm_groups=8, output_patch=8,
    ),
    "conv, two levels": DecoderConfig(
        channels=64, multipliers=(1, 2), num_res_blocks=0, attention_grids=(8,), z_channels=96,
        norm_groups=8, output_patch=4,
    ),
    "patch, no hidden layer to speak of": DecoderConfig(
        kind="patch", channels=128, multipliers=(1,), z_channels=96, output_patch=8, head_size=32
    ),
    "patch": DecoderConfig(
        kind="patch", channels=128, multipliers=(1,), z_channels=96, output_patch=8
    ),
    "patch, two layers": DecoderConfig(
        kind="patch", channels=128, multipliers=(1,), z_channels=96, output_patch=8, num_layers=2
    ),
}  # fmt: skip
LEARNING_RATE = {"conv": 1e-3, "patch": 2e-3}
BATCH = 64


class Pixels(nn.Module):
    """What follows the quantiser in a tower."""

    def __init__(self, config: DecoderConfig, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.post_quant_conv = nn.Conv2d(width, config.z_channels, 1)
        self.decoder = build_decoder(config, grid=grid)

    def forward(self, features: Tensor) -> Tensor:
        """Decode ``(B, P, Z)`` to images."""
        z = features.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return self.decoder(self.post_quant_conv(z))


def scenes(split: str, count: int, level: str) -> tuple[list[str], Tensor]:
    """Scenes as JSON and as uint8 images ``(N, 3, 64, 64)``."""
    found = [scene_at(split, index, level=level) for index in range(count)]
    images = torch.from_numpy(np.stack([render(scene) for scene in found])).permute(0, 3, 1, 2)
    return [scene.to_json() for scene in found], images


@torch.no_grad()
def features(tower: VisionTower, images: Tensor) -> Tensor:
    """The quantised features of uint8 images."""
    return torch.cat([tower.quantize(to_float(part)).features for part in images.split(200)])


def batches(count: int, seed: int) -> Iterator[Tensor]:
    """Random indices without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randint(0, count, (BATCH,), generator=generator)


def trained(
    config: DecoderConfig, images: Tensor, seen: Tensor, seconds: float
) -> tuple[Pixels, int]:
    """Train for so many CPU seconds, cosine to zero; return the decoder and its number of steps."""
    torch.manual_seed(0)
    model = Pixels(config, seen.shape[-1], math.isqrt(seen.shape[1]))
    rate = LEARNING_RATE[config.kind]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    begun, steps = time.process_time(), 0
    for index in batches(len(images), 0):
        done = (time.process_time() - begun) / seconds
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = (
            rate * min(1.0, (steps + 1) / 50) * (1 + math.cos(math.pi * done)) / 2
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            drawn = model(seen[index])
        error = drawn.float() - to_float(images[index])
        (4 * error.square().mean() + 2 * error.abs().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return model.eval(), steps


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tower", help="folder of a tower of the drawn world")
    parser.add_argument("--level", default="easy")
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tower = vilau.load_tower(args.tower)
    _, train = scenes("train", 6000, args.level)
    truth, val = scenes("val", 300, args.level)
    seen, unseen = features(tower, train), features(tower, val)
    print("| decoder | steps | rFID | PSNR | scene exact | shape |\n|---|--:|--:|--:|--:|--:|")
    for name, config in DECODERS.items():
        model, steps = trained(config, train, seen, args.seconds)
        measured = Reconstructions("world", None, None, None)
        measured.to(torch.device("cpu"))
        with torch.no_grad():
            drawn = torch.cat([model(part) for part in unseen.split(100)])
        measured.update(val, to_uint8(drawn.clamp(-1, 1)), truth)
        found = {key: float(value) for key, value in measured.compute().items()}
        print(
            f"| {name} | {steps} | {found['rfid']:.2f} | {found['psnr']:.1f} | "
            f"{found['recon_scene_exact']:.1%} | {found['recon_object_shape']:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
