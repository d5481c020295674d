"""The drawn world's twins under `Evaluation`, as a study runs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vilau.apps.common import device_of, model_folder, say
from vilau.apps.evaluation.passports import OCR_DETAIL
from vilau.apps.evaluation.results import RESULTS, keep, kept, show

OCR_TWIN = "world_textvqa"
PRIOR_SCENES = 1000
"""Training scenes that tell the blind what is frequent."""


def run_twins(names: Sequence[str], out: Path, args: Any) -> None:
    """Measure a model on twins, one after the other; each one's numbers are kept before the next is asked.

    A twin whose numbers ``out`` holds, read in the same style and of as many questions, is left as it is. Answers
    go to ``out/predictions``, a file per benchmark.
    """
    from vilau.study.session import quiet_lightning
    from vilau.training.evaluate import Evaluation

    quiet_lightning()
    done = {name for name in names if _is_done(name, out, args)}
    for name in sorted(done):
        say(f"{name}: measured before, its numbers stand in {out / RESULTS}")
        show({key: found for key, found in kept(out).items() if found.get("twin") == name})
    if done.issuperset(names):
        return
    module = Evaluation(
        str(model_folder(args.model)),
        guidance_scale=args.guidance_scale,
        max_new_tokens=args.max_new_tokens or 16,
        seed=args.seed,
        show_images=not args.without_images,
    )
    for name in names:
        if name not in done:
            keep(out, run_twin(name, module, out, args), twin=name)


def run_twin(name: str, module: Any, out: Path, args: Any) -> dict[str, Any]:
    """Measure a model on one twin; returns value and passport of each number, and what it was asked for with."""
    import lightning.pytorch as pl

    from vilau.data.twins.prompts import DRAWN

    device = device_of(args.device)
    model = module.model
    size = model.tokenizer.spec.image_size if name in DRAWN else model.reading_size
    data = twin_data([name], size, args)
    with_ocr = args.ocr and name == OCR_TWIN
    if with_ocr:
        data.setup()
        data.sets = [_with_tokens(found) for found in data.sets]
    callbacks = _callbacks(name, args)
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
    (measured,) = trainer.test(module, data, verbose=False)
    passports = {n: asdict(p) for callback in callbacks for n, p in callback.passports.items()}
    if with_ocr:
        for found in passports.values():
            found["details"] = "; ".join(filter(None, [found["details"], OCR_DETAIL]))
    return {
        full: {"value": float(value), "passport": passports.get(full), **_marks(name, args)}
        for full, value in measured.items()
    }


def _callbacks(name: str, args: Any) -> list[Any]:
    from vilau.callbacks.category_fid import CategoryFID
    from vilau.callbacks.category_judge import CategoryJudge
    from vilau.callbacks.clip_quality import ClipQuality
    from vilau.callbacks.question_answering import QuestionAnswering
    from vilau.callbacks.skill_scores import SkillScores
    from vilau.data.twins.prompts import GENAI, MJHQ, VBENCH

    if name == MJHQ:
        return [CategoryFID(), CategoryJudge()]
    if name in (GENAI, VBENCH):
        return [SkillScores() if name == GENAI else ClipQuality()]
    return [QuestionAnswering(style=args.style)]


def _marks(name: str, args: Any) -> dict[str, Any]:
    """What a twin's numbers depend on that the folder's record does not hold; drawings are read in no style."""
    from vilau.data.twins.prompts import DRAWN

    return {"twin": name, "style": None if name in DRAWN else args.style, "limit": args.limit}


def _is_done(name: str, out: Path, args: Any) -> bool:
    marks = _marks(name, args)
    return any(
        all(found.get(key) == value for key, value in marks.items()) for found in kept(out).values()
    )


def _with_tokens(found: Any) -> Any:
    """Return a twin's set with the OCR tokens of each row in its question."""
    from vilau.data.published.ocr import with_tokens

    asked = [
        replace(one, prompt=with_tokens(one.prompt, one.row["ocr_tokens"])) for one in found.asked
    ]
    return replace(found, asked=asked)


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
