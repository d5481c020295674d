"""The drawn world's twins under `Evaluation`, as a study runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vilau.apps.common import device_of, model_folder

PRIOR_SCENES = 1000
"""Training scenes that tell the blind what is frequent."""


def run_twins(names: Sequence[str], out: Path, args: Any) -> dict[str, Any]:
    """Measure a model on twins; returns value and passport of each number.

    Answers go to ``out/predictions``, a file per benchmark.
    """
    import lightning.pytorch as pl

    from vilau.callbacks.category_fid import CategoryFID
    from vilau.callbacks.category_judge import CategoryJudge
    from vilau.callbacks.clip_quality import ClipQuality
    from vilau.callbacks.question_answering import QuestionAnswering
    from vilau.callbacks.skill_scores import SkillScores
    from vilau.data.twins.prompts import GENAI, MJHQ, VBENCH
    from vilau.training.evaluate import Evaluation

    device = device_of(args.device)
    module = Evaluation(
        str(model_folder(args.model)),
        guidance_scale=args.guidance_scale,
        max_new_tokens=args.max_new_tokens or 16,
        seed=args.seed,
    )
    data = twin_data(names, module.model.tokenizer.spec.image_size, args)
    callbacks: list[Any] = [QuestionAnswering(style=args.style)]
    extra: dict[str, list[Any]] = {
        GENAI: [SkillScores],
        MJHQ: [CategoryFID, CategoryJudge],
        VBENCH: [ClipQuality],
    }
    callbacks += [make() for name in extra if name in names for make in extra[name]]
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=str(out),
        enable_progress_bar=sys.stderr.isatty(),
        callbacks=list(callbacks),  # the trainer adds its own
    )
    numbers: dict[str, float] = {}
    for measured in trainer.test(module, data, verbose=False):
        numbers |= {name.split("/dataloader_idx")[0]: float(v) for name, v in measured.items()}
    passports = {
        name: asdict(p) for callback in callbacks for name, p in callback.passports.items()
    }
    return {name: {"value": v, "passport": passports.get(name)} for name, v in numbers.items()}


def twin_data(names: Sequence[str], image_size: int, args: Any) -> Any:
    """Return the data module of some twins."""
    from vilau.data.twin_benchmarks import TwinBenchmarks
    from vilau.data.world_data import WorldSpec

    return TwinBenchmarks(
        tuple(names),
        image_size=image_size,
        global_batch_size=args.batch_size,
        world=WorldSpec(level=args.level),
        num_questions=args.limit or 400,
        num_prompts=args.limit or 200,
        genai_prompts=args.limit,
        num_prior_scenes=PRIOR_SCENES,
        seed=args.seed,
    )
