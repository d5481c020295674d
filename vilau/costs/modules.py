"""What one sample costs in each LightningModule.

Per sample (2 operations per weight and token forward, 4 backward, plus attention and search):

* tower: 3 x (encoder + pixel decoder + LPIPS' VGG16) + search + text tower, which is frozen; with the
  contrastive loss 3 x the last block and the pooling head. The search is one pass over the codebook for
  each depth while it learns, and one for all depths of a frozen tower. A discriminator adds 8 passes over
  itself, an adaptive weight 1 and one of LPIPS, R1 6, from its start step on; averages of the weights cost
  memory alone;
* convolutional tokenizer: 3 x (encoder + decoder + refinements of codes + LPIPS' VGG16) + search;
* language: 3 x (language model + output layer at text targets + a family's own networks, such as projector and depth
  transformer at drawn images) + one forward pass of what codes images, or for VARGPT of what reads them. Parts that
  are frozen are counted as if they learnt: gradients go through most of them;
* evaluation: a question is one forward pass over image, prompt and answer; a drawing is one over
  prompt and image, twice with guidance, the depth transformer at each position, and one decoding.
"""

from __future__ import annotations

from collections.abc import Callable

from vilau.costs import counts
from vilau.costs.asked import asked
from vilau.costs.config import Config, UnknownSizesError, argument, arguments, class_of
from vilau.costs.documents import (
    ANSWER_TOKENS,
    CLIP_FRAMES,
    TEXT_TOKENS,
    Form,
    document_forms,
)
from vilau.costs.families import Unified, unified
from vilau.costs.parts import clip_sizes
from vilau.costs.tokenizer import tokenizer_work
from vilau.costs.tower import tower_work
from vilau.costs.work import Work


def work_of(config: Config) -> Work:
    """Return the work of a stage; raises ``UnknownSizesError`` where it cannot be known."""
    count = MODULES.get(class_of(config, "model"))
    if count is None:
        raise UnknownSizesError
    return count(config)


def _clip(config: Config) -> Work:
    sizes = clip_sizes(config)
    part = counts.siglip(sizes)
    whole = part.encoder + part.pooling + part.text + part.scales
    alignment = arguments(config, "model").get("alignment") or {}
    unseen = 1 if alignment.get("loss") == "softmax" else 0  # the bias
    return Work(
        parameters=whole.parameters,
        trained=whole.parameters - unseen,
        tokens=sizes.grid**2 + sizes.text_length,
        train_flops=3 * whole.flops,
        forward_flops=part.encoder.flops + part.pooling.flops,
        kept=whole.kept,
    )


def _language(config: Config) -> Work:
    """Pretraining and fine-tuning: documents that read images or clips, draw them, or have none."""
    model = unified(config)
    forms = [form for form in document_forms(config) if form.share > 0]
    counted = [
        (
            form,
            model.document(
                round(form.images * _positions(model, form) + form.text),
                round(form.targets),
                read=0 if form.drawn else form.images,
                drawn=form.images if form.drawn else 0,
            ),
        )
        for form in forms
    ]
    frozen_flops = sum(
        form.share
        * form.images
        / form.per_image
        * (model.tokenizer.coding_flops if form.drawn else model.seeing_flops)
        for form in forms
    )
    forward = sum(form.share * count.flops for form, count in counted)
    return Work(
        parameters=model.parameters,
        trained=model.learning(arguments(config, "model").get("trained")),
        tokens=sum(
            form.share * (form.images * _positions(model, form) + form.text) for form in forms
        ),
        train_flops=3 * forward + frozen_flops,
        forward_flops=forward + frozen_flops,
        kept=sum(form.share * count.kept for form, count in counted),
        buffers=model.tokenizer.buffers,
    )


def _positions(model: Unified, form: Form) -> int:
    return model.drawn_positions if form.drawn else model.read_positions


def _evaluation(config: Config) -> Work:
    model = unified(config)
    ask = asked(config)

    def answer(images: int) -> float:
        tokens = images * model.read_positions + TEXT_TOKENS
        asked_of = model.document(tokens, ANSWER_TOKENS, read=images, drawn=0)
        return asked_of.flops + images * model.seeing_flops

    rows = _rows_per_prompt(config)
    drawing = model.document(model.drawn_positions + TEXT_TOKENS, 0, read=0, drawn=1)
    draw = rows * drawing.flops + _images_per_prompt(config) * model.tokenizer.pixels.flops
    shown = bool(argument(config, "model", "show_images"))
    flops = ask.questions * answer(int(shown)) + ask.clip_questions * answer(shown * CLIP_FRAMES)
    flops += (ask.prompts + CLIP_FRAMES * ask.clip_prompts) * draw
    # Of one picture, seen or drawn, unless nothing is.
    drawn = model.drawn_positions if ask.prompts or ask.clip_prompts else 0
    tokens = TEXT_TOKENS + max(drawn, model.read_positions if shown else 0)
    return Work(
        parameters=model.parameters,
        trained=0,
        tokens=tokens,
        train_flops=0,
        forward_flops=flops / ask.total if ask.total else answer(int(shown)),
        # Keys and values of every layer.
        kept=rows * tokens * model.cache_width * model.language.num_layers,
        buffers=model.tokenizer.buffers,
    )


def _scales(config: Config) -> list[float]:
    """The guidance scales at which an evaluation draws each prompt."""
    if class_of(config, "model").endswith("GuidanceSweep"):
        return list(argument(config, "model", "guidance_scales"))
    return [argument(config, "model", "guidance_scale")]


def _rows_per_prompt(config: Config) -> int:
    """Rows of the language model: another without the prompt wherever guidance acts."""
    return sum(1 if scale == 1.0 else 2 for scale in _scales(config))


def _images_per_prompt(config: Config) -> int:
    return len(_scales(config))


def _detector(config: Config) -> Work:
    args = arguments(config, "model")
    if "attributes" not in args or "backgrounds" not in args:
        raise UnknownSizesError
    size = argument(config, "model", "image_size")
    count = counts.scene_detector(
        args["attributes"], args["backgrounds"], size, argument(config, "model", "channels")
    )
    return Work(
        parameters=count.parameters,
        trained=count.parameters,
        tokens=(size // 8) ** 2,
        train_flops=3 * count.flops,
        forward_flops=count.flops,
        kept=2 * count.kept,  # batch norm keeps its input and its output's sign
    )


MODULES: dict[str, Callable[[Config], Work]] = {
    "vilau.training.clip.ClipPretraining": _clip,
    "vilau.training.tower.TowerTraining": tower_work,
    "vilau.training.ablations.contrastive.ContrastiveAblation": tower_work,
    "vilau.training.ablations.residual_depth.ResidualDepthAblation": tower_work,
    "vilau.training.pretrain.MultimodalPretraining": _language,
    "vilau.training.pretrain.LiquidPretraining": _language,
    "vilau.training.pretrain.VargptPretraining": _language,
    "vilau.training.tokenizer.LiquidTokenizerTraining": tokenizer_work,
    "vilau.training.tokenizer.VargptTokenizerTraining": tokenizer_work,
    "vilau.training.finetune.SupervisedFineTuning": _language,
    "vilau.training.evaluate.Evaluation": _evaluation,
    "vilau.training.ablations.guidance.GuidanceSweep": _evaluation,
    "vilau.training.detector.SceneDetectorTraining": _detector,
}
