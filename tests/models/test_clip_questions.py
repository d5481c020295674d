"""What is learnt about clips is what is asked: the same tokens in fine-tuning and in evaluation."""

from itertools import product

import pytest
import torch

from tests.models import tiny
from vilau.data.forms import conversation, filming_document
from vilau.layers.pixels import to_float
from vilau.models.questions import answers_about, clip_question
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.prompts import VIDEO_START, chat_segments


@pytest.mark.parametrize(
    ("family", "form"),
    [*product(tiny.NEXT_TOKEN, ["plain", "published"]), ("vargpt", "plain")],
)
@pytest.mark.parametrize("system", ["", "two ."])
def test_a_question_about_a_clip_reads_the_same_in_training_and_evaluation(family, form, system):
    model = tiny.FAMILIES[family](prompt=PromptConfig(system=system, form=form))
    sequence = model.sequence
    trained = sequence.lay_out([conversation((0, 1), ["what moves ?", "a star"])])
    question = clip_question(model, "what moves ?", 2)
    asked = chat_segments(question, (0, 1), bare=form == "published")
    prompt = sequence.answer_prompts([asked])
    length = prompt.ids.shape[1]
    assert torch.equal(trained.ids[:, :length], prompt.ids)
    assert torch.equal(trained.span_starts, prompt.span_starts)
    assert not trained.targets[:, :length].any()
    assert trained.targets[:, length:].all()
    if form == "published" and family == "liquid":
        return
    tokens = {sequence.token("<vi_start>"), sequence.token("<vi_end>")}
    assert len(tokens & set(prompt.ids[0].tolist())) == {"plain": 2, "published": 0}[form]


def test_a_question_with_marks_of_its_own_stays_as_it_is():
    asked = "<image> and <image> : same ?"
    assert clip_question(tiny.vila_u(), asked, 2) == asked
    images = to_float(tiny.images(2))
    answers = answers_about(tiny.vila_u(), images, [asked], [2], max_new_tokens=3)
    assert answers == [tiny.vila_u().generate_text(images, asked, max_new_tokens=3)]


@pytest.mark.parametrize("form", ["plain", "published"])
def test_a_clip_is_asked_for_the_same_in_training_and_evaluation(form):
    sequence = tiny.vila_u(prompt=PromptConfig(system="", form=form)).sequence
    trained = sequence.lay_out([filming_document((0, 1), "a star moves left")])
    prompt = sequence.drawing_prompts(["a star moves left"], start=VIDEO_START)
    length = prompt.ids.shape[1]
    assert torch.equal(trained.ids[:, :length], prompt.ids)
    assert trained.span_starts.tolist() == [length, length + sequence.num_positions]
    assert trained.span_targets.all()
