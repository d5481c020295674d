"""What one sample costs in each LightningModule.

Per sample (2 operations per weight and token forward, 4 backward, plus attention and search):

* tower: 3 x (encoder + pixel decoder + LPIPS' VGG16) + search + text tower, which is frozen; with the
  contrastive loss 3 x the last block and the pooling head. The search is one pass over the codebook for
  each depth while it learns, and one for all depths of a frozen tower. A discriminator adds 8 passes over
  itself, an adaptive weight 1 and one of LPIPS, R1 6, from its start step on; averages of the weights cost
  memory alone;
* language: 3 x (language model + output layer at text targets + projector + depth transformer at drawn
  images) + one forward pass of the frozen tower's encoder and search;
* evaluation: a question is one forward pass over image, prompt and answer; a drawing is one over
  prompt and image, twice with guidance, the depth transformer at each position, and one decoding.
"""

from __future__ import annotations

from collections.abc import Callable

from vilau.costs import counts
from vilau.costs.asked import asked
from vilau.costs.config import Config, UnknownSizesError, argument, arguments, class_of
from vilau.costs.documents import ANSWER_TOKENS, CLIP_FRAMES, TEXT_TOKENS, document_forms
from vilau.costs.parts import clip_sizes, unified
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
    positions = model.sizes.grid**2
    forms = [form for form in document_forms(config) if form.share > 0]
    counted = [
        (
            form,
            model.document(
                round(form.images * positions + form.text),
                round(form.targets),
                drawn=form.images * positions if form.drawn else 0,
                images=form.images,
            ),
        )
        for form in forms
    ]
    images = sum(form.share * form.images for form in forms)
    encoded = sum(form.share * form.images / form.per_image for form in forms)
    tower_flops = encoded * (model.tower.siglip.encoder.flops + model.tower.search.flops)
    forward = sum(form.share * count.flops for form, count in counted)
    return Work(
        parameters=model.parameters,
        trained=model.parameters - model.tower.parameters,
        tokens=images * positions + sum(form.share * form.text for form in forms),
        train_flops=3 * forward + tower_flops,
        forward_flops=forward + tower_flops,
        kept=sum(form.share * count.kept for form, count in counted),
        buffers=model.tower.buffers,
    )


def _evaluation(config: Config) -> Work:
    model = unified(config)
    num_positions = model.sizes.grid**2
    ask = asked(config)

    def answer(images: int) -> float:
        seeing = images * (model.tower.siglip.encoder.flops + model.tower.search.flops)
        tokens = images * num_positions + TEXT_TOKENS
        return model.document(tokens, ANSWER_TOKENS, drawn=0, images=images).flops + seeing

    rows = _rows_per_prompt(config)
    drawing = model.document(num_positions + TEXT_TOKENS, 0, drawn=num_positions, images=1)
    draw = rows * drawing.flops + _images_per_prompt(config) * model.tower.pixels.flops
    shown = bool(argument(config, "model", "show_images"))
    flops = ask.questions * answer(int(shown)) + ask.clip_questions * answer(shown * CLIP_FRAMES)
    flops += (ask.prompts + CLIP_FRAMES * ask.clip_prompts) * draw
    # Of one picture, seen or drawn, unless nothing is.
    tokens = TEXT_TOKENS + (num_positions if shown or ask.prompts or ask.clip_prompts else 0)
    return Work(
        parameters=model.parameters,
        trained=0,
        tokens=tokens,
        train_flops=0,
        forward_flops=flops / ask.total if ask.total else answer(int(shown)),
        # Keys and values of every layer.
        kept=rows * tokens * model.cache_width * model.language.num_layers,
        buffers=model.tower.buffers,
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
    "vilau.training.finetune.SupervisedFineTuning": _language,
    "vilau.training.evaluate.Evaluation": _evaluation,
    "vilau.training.ablations.guidance.GuidanceSweep": _evaluation,
    "vilau.training.detector.SceneDetectorTraining": _detector,
}
