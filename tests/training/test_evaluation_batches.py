"""What `Evaluation` makes of questions about clips and of prompts for clips."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models import tiny
from vilau.errors import DataError
from vilau.models.questions import answers_about
from vilau.training.evaluate import Evaluation
from vilau.types import ClipPromptBatch, QuestionBatch, Rebuilds


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("model")
    made = tiny.vila_u()
    with torch.no_grad():
        made.head.classifier.weight *= 20
        made.language.lm_head.weight *= 20
    made.save(folder / "model")
    return Evaluation(str(folder / "model"), max_new_tokens=4, seed=3)


def test_pictures_and_clips_of_one_batch_are_answered_in_order(module: Evaluation) -> None:
    images, frames = tiny.images(6), [1, 3, 1, 1]
    asked = ["what ?", "which way ?", "where ?", "how many ?"]
    batch = QuestionBatch(images, asked, [["x"]] * 4, ["f"] * 4, frames=frames)
    answers = module.test_step(batch, 0).answers
    floats = images / 127.5 - 1
    rows = torch.stack([floats[0], floats[4], floats[5]])
    single = module.model.answer(rows, [asked[0], asked[2], asked[3]], max_new_tokens=4)
    clip = module.model.generate_text(
        floats[1:4], "<vi_start><image><image><image><vi_end>\nwhich way ?", max_new_tokens=4
    )
    assert answers == [single[0], clip, *single[1:]]
    assert len(set(answers)) > 1
    with pytest.raises(DataError, match="4 questions have 6 images in 4 groups that add up to 5"):
        answers_about(module.model, floats, asked, [1, 2, 1, 1], max_new_tokens=4)


def test_clips_are_drawn_from_the_seeds_of_their_places(module: Evaluation) -> None:
    def drawn(*prompts: str, first: int) -> torch.Tensor:
        batch = ClipPromptBatch(
            list(prompts), ["{}"] * len(prompts), num_frames=2, first_index=first
        )
        return module.test_step(batch, 0).clips

    both = drawn("a star", "a ring", first=5)
    assert both.shape == (2, 2, 3, tiny.SIDE, tiny.SIDE)
    assert both.dtype == torch.uint8
    assert (drawn("a ring", first=6)[0] == both[1]).all()
    assert not (drawn("a ring", first=7)[0] == both[1]).all()


def test_pictures_are_rebuilt_by_the_tokenizer(module: Evaluation) -> None:
    assert isinstance(module, Rebuilds)
    images = tiny.images(2)
    rebuilt = module.rebuild(images)
    tokenizer = module.model.tokenizer
    direct = tokenizer.decode(tokenizer.encode(images / 127.5 - 1)).clamp(-1, 1)
    assert (rebuilt.float() - (direct + 1) * 127.5).abs().max() <= 0.51


def test_without_images_the_language_model_answers_alone(tmp_path: Path) -> None:
    made = tiny.vila_u()
    with torch.no_grad():
        made.language.lm_head.weight *= 20
    made.save(tmp_path)
    module = Evaluation(str(tmp_path), max_new_tokens=4, show_images=False)
    asked = ["what ?", "which way ?", "<image> and <image> : same ?"]
    batch = QuestionBatch(tiny.images(6), asked, [["x"]] * 3, ["f"] * 3, frames=[1, 3, 2])
    plain = [*asked[:2], "and : same ?"]
    output = module.test_step(batch, 0)
    assert output.answers == module.model.answer(None, plain, max_new_tokens=4)
    assert not output.images_shown
    other = QuestionBatch(255 - tiny.images(6), asked, [["x"]] * 3, ["f"] * 3, frames=[1, 3, 2])
    assert module.test_step(other, 0).answers == output.answers
    shown = Evaluation(str(tmp_path), max_new_tokens=4).test_step(batch, 0)
    assert shown.images_shown
    assert shown.answers != output.answers
    # Questions about none, one and several images stand in one batch.
    mixed = answers_about(
        module.model, tiny.images(3) / 127.5 - 1, asked[:2] * 2, [0, 1, 2, 0], max_new_tokens=4
    )
    assert [mixed[0], mixed[3]] == output.answers[:2]
    assert mixed[1] != mixed[3]
    # Ranked options likewise.
    options = [["two", "a star", "a red circle"]] * 3
    batch = QuestionBatch(
        tiny.images(6), asked, [["x"]] * 3, ["f"] * 3, frames=[1, 3, 2], options=options
    )
    best = [
        module.model.answer_log_likelihoods(None, question, options[0]).argmax()
        for question in plain
    ]
    assert module.test_step(batch, 0).answers == ["ABC"[index] for index in best]
