"""Pictures to look at while a run goes on: reconstructions depth by depth, and drawings."""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vilau.callbacks.measuring import MeasuringCallback
from vilau.callbacks.pictures import show
from vilau.callbacks.sheets import captioned, grid
from vilau.errors import ConfigError
from vilau.types import DrawingOutput, Draws, ImageTextBatch, PromptBatch, Reconstructs


class ImageGrid(MeasuringCallback):
    """Shows pictures in TensorBoard and saves them under ``<default_root_dir>/images``.

    * ``val/reconstructions``: the first images of the validation set beside their reconstructions
      from one depth (scale), two, and so on; where the module is a visual tokenizer.
    * ``val/drawings``: the given ``prompts`` as the module draws them after each validation, always
      from the same noise.
    * ``test/drawings``: the first images of a drawing test beside their prompts.

    Args:
        num_images: how many images of a set to show.
        prompts: texts to draw after each validation; needs a module that draws.
        seed: of the noise the prompts are drawn from.
    """

    def __init__(
        self, num_images: int = 8, prompts: list[str] | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if num_images < 1:
            raise ConfigError(f"ImageGrid.num_images is {num_images}; write 1 or more.")
        self.num_images = num_images
        self.prompts = list(prompts or [])
        self.seed = seed
        self.rows: list[list[Tensor]] = []
        self.part_name = "depth"
        self.drawings: list[Tensor] = []
        self.captions: list[str] = []

    def begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last pictures."""
        self.rows, self.drawings, self.captions = [], [], []

    def observe(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any
    ) -> bool:
        """Keep the first images."""
        if isinstance(batch, ImageTextBatch) and isinstance(pl_module, Reconstructs):
            missing = self.num_images - len(self.rows)
            if missing > 0:
                images = batch.images[:missing]
                with torch.no_grad():
                    by_part = pl_module.reconstruct_by_part(images)
                self.part_name = pl_module.part_name
                # One row per image: the original, then depth (scale) 1, depths 1-2, ...
                columns = torch.cat([images[None], by_part]).cpu()
                self.rows += [list(row) for row in columns.transpose(0, 1)]
        if isinstance(batch, PromptBatch) and isinstance(outputs, DrawingOutput):
            missing = self.num_images - len(self.drawings)
            self.drawings += list(outputs.images[:missing].cpu())
            self.captions += batch.prompts[:missing]
        return bool(self.rows or self.drawings or self.prompts)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        """Show what was kept, and draw the prompts."""
        if self.rows:
            parts, name = len(self.rows[0]) - 1, self.part_name
            headings = ["original", f"{name} 1", *(f"{name}s 1-{n}" for n in range(2, parts + 1))]
            show(trainer, f"{split}/reconstructions", grid(self.rows, headings[: parts + 1]))
        if self.prompts and split == "val":
            if not isinstance(pl_module, Draws):
                raise ConfigError(
                    f"ImageGrid.prompts holds {len(self.prompts)} prompts, but "
                    f"{type(pl_module).__name__} does not draw; take the key prompts out."
                )
            self.drawings = list(pl_module.draw(self.prompts, seed=self.seed).cpu())
            self.captions = self.prompts
        if self.drawings:
            show(trainer, f"{split}/drawings", captioned(self.drawings, self.captions))
