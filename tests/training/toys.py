"""Toy data, trainers and modules that the training tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from tests.models import tiny
from vilau.training.ablations.contrastive import ContrastiveAblation
from vilau.training.clip import ClipPretraining
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import LiquidPretraining, MultimodalPretraining, VargptPretraining
from vilau.training.tower import TowerTraining
from vilau.types import LabelledImageBatch


class ToyData(LightningDataModule):
    """Ready-made batches, in order; those of one accumulated step know one another, as a real loader's do."""

    def __init__(self, train: Sequence[Any], val: Sequence[Any] = ()) -> None:
        super().__init__()
        self.train, self.val = list(train), list(val)

    def train_dataloader(self) -> DataLoader:
        parts = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        for first in range(0, len(self.train), parts) if parts > 1 else ():
            step = self.train[first : first + parts]
            for number, part in enumerate(step):
                part.join_step(number, step)
        return DataLoader(self.train, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=None)


class Recorder(Callback):
    """Keeps the loss of every training batch, what was logged with it, and validation outputs."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.logged: list[dict[str, float]] = []
        self.outputs: list[Any] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses.append(float(outputs["loss"]))
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0):
        self.outputs.append(outputs)


def trainer(max_steps: int, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return Trainer(max_steps=max_steps, **{**defaults, **settings})


def fit(module, data: ToyData, steps: int, **settings: Any) -> Recorder:
    recorder = Recorder()
    seed_everything(0, verbose=False)
    trainer(steps, callbacks=[recorder], **settings).fit(module, data)
    return recorder


def labelled() -> LabelledImageBatch:
    texts = [["a red circle", "red circle"], ["a blue square", "blue square"]]
    return LabelledImageBatch(tiny.images(4), torch.tensor([0, 1, 0, 1]), texts)


def pair_data() -> ToyData:
    return ToyData([tiny.pairs(seed=s) for s in range(3)], [tiny.pairs(seed=9), labelled()])


def multimodal_data() -> ToyData:
    return ToyData([tiny.multimodal(s) for s in range(3)], [tiny.multimodal(9)])


def clip(folder: Path, **changes: Any) -> ClipPretraining:
    torch.manual_seed(0)
    return ClipPretraining(siglip=tiny.sizes(), optimizer=tiny.optimizer(), **changes)


def tower(folder: Path, kind: type[TowerTraining] = TowerTraining, **changes: Any) -> TowerTraining:
    source = tiny.siglip_folder(folder / "siglip")
    torch.manual_seed(0)
    settings = {"perceptual_weight": 0.0, "optimizer": tiny.optimizer(), **changes}
    quantizer = settings.pop("quantizer", tiny.quantizer())
    return kind(source, quantizer, tiny.decoder(), **settings)


def ablation(folder: Path, **changes: Any) -> ContrastiveAblation:
    return tower(folder, kind=ContrastiveAblation, **{"measure_every_n_steps": 1, **changes})


def pretraining(folder: Path, **changes: Any) -> MultimodalPretraining:
    source = tiny.tower_folder(folder / "tower")
    torch.manual_seed(0)
    settings = {"optimizer": tiny.optimizer(), **changes}
    return MultimodalPretraining(source, tiny.language(), tiny.head(), tiny.PROMPT, **settings)


def liquid(folder: Path, **changes: Any) -> LiquidPretraining:
    """Words and codes in one table, which is read from and predicted with, as in the release."""
    tiny.vqgan().save(folder / "tokenizer")
    torch.manual_seed(0)
    settings = {"optimizer": tiny.optimizer(), **changes}
    language = tiny.language(tie_embeddings=True)
    return LiquidPretraining(str(folder / "tokenizer"), language, tiny.PROMPT, **settings)


def vargpt(folder: Path, **changes: Any) -> VargptPretraining:
    tiny.over_scales().save(folder / "tokenizer")
    torch.manual_seed(0)
    settings = {"optimizer": tiny.optimizer(), **changes}
    parts = tiny.language(), tiny.picture_reader(), tiny.scale_decoder(), tiny.PROMPT
    return VargptPretraining(str(folder / "tokenizer"), *parts, **settings)


def finetuning(folder: Path, **changes: Any) -> SupervisedFineTuning:
    pretraining(folder).export(str(folder / "pretrained"))
    return SupervisedFineTuning(
        str(folder / "pretrained"), **{"optimizer": tiny.optimizer(), **changes}
    )
