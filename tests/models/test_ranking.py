"""Options ranked by how likely the model is to say them."""

import re

import pytest
import torch

from tests.models import tiny
from vilau.data.forms import conversation
from vilau.errors import DataError
from vilau.layers.pixels import to_float
from vilau.models.questions import clip_question, likeliest_letters
from vilau.models.sequence.config import PromptConfig
from vilau.types import MultimodalBatch

OPTIONS = ("a red circle", "two", "a star", "a blue square left of a green star")


def mean_losses(model, images, shown, question):
    """What training's loss says of each option alone."""
    return torch.stack([
        model.losses(MultimodalBatch(images, [conversation(shown, [question, option])])).means()["text"]
        for option in OPTIONS
    ])  # fmt: skip


@pytest.mark.parametrize("shown", [0, (0, 1), None], ids=["picture", "clip", "words"])
def test_an_option_is_as_likely_as_training_says(shown):
    model = tiny.vila_u()
    count = {0: 1, None: 0}.get(shown, 2)
    images = to_float(tiny.images(count)) if count else None
    prompt = "what is it ?"
    if count == 2:
        prompt = "<vi_start><image><image><vi_end>\nwhat is it ?"
    found = model.answer_log_likelihoods(images, prompt, OPTIONS)
    given = torch.zeros(0, 3, 32, 32) if images is None else images
    expected = -mean_losses(model, given, shown, "what is it ?")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


def test_of_a_chat_the_last_answer_alone_is_weighed():
    model, images = tiny.vila_u(), to_float(tiny.images(1))
    asked = ["what is it ?", "a star", "how many ?"]
    found = model.answer_log_likelihoods(images, asked, OPTIONS)
    before = model.losses(MultimodalBatch(images, [conversation(0, asked[:2])]))
    for value, option in zip(found, OPTIONS, strict=True):
        whole = model.losses(MultimodalBatch(images, [conversation(0, [*asked, option])]))
        loss = whole.sums["text"] - before.sums["text"]
        expected = -loss / (whole.counts["text"] - before.counts["text"])
        torch.testing.assert_close(value, expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "lean", "eager"])
@pytest.mark.parametrize(("room", "rows"), [(256, 1), (60, 2)], ids=["one row", "two rows"])
def test_all_options_go_on_from_one_reading_of_the_picture(attention, room, rows, monkeypatch):
    model, images = tiny.vila_u(max_length=room, attention=attention), to_float(tiny.images(1))
    read = []
    body = model.language.model.forward
    monkeypatch.setattr(
        model.language.model,
        "forward",
        lambda inputs_embeds, **kw: (
            read.append(len(inputs_embeds)) or body(inputs_embeds=inputs_embeds, **kw)
        ),
    )
    found = model.answer_log_likelihoods(images, "what is it ?", OPTIONS)
    assert read == [rows]
    expected = -mean_losses(model, images, 0, "what is it ?").detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "published"])
def test_the_likeliest_option_is_taken_for_pictures_and_clips(form):
    model = tiny.vila_u(prompt=PromptConfig(system="", form=form))
    images = to_float(tiny.images(4))
    questions = ["what is it ?", "what moves ?", "how many ?"]
    options = [OPTIONS, OPTIONS[:2], OPTIONS[1:]]
    letters = likeliest_letters(model, images, questions, options, [1, 2, 1])
    alone = [
        likeliest_letters(model, images[a:b], [q], [o], [b - a])[0]
        for (a, b), q, o in zip([(0, 1), (1, 3), (3, 4)], questions, options, strict=True)
    ]
    assert letters == alone
    best = model.answer_log_likelihoods(images[:1], questions[0], OPTIONS).argmax()
    assert letters[0] == "ABCD"[best]
    # Turned around, the same option is found under another letter.
    turned = likeliest_letters(model, images[:1], questions[:1], [OPTIONS[::-1]])
    assert turned == ["DCBA"[best]]


def test_a_clip_is_asked_about_as_it_was_learnt(monkeypatch):
    model, asked = tiny.vila_u(), []
    weigh = model.answer_log_likelihoods
    monkeypatch.setattr(
        model,
        "answer_log_likelihoods",
        lambda i, prompt, o: asked.append(prompt) or weigh(i, prompt, o),
    )
    likeliest_letters(model, to_float(tiny.images(3)), ["what ?"] * 2, [OPTIONS] * 2, [2, 1])
    assert asked == [clip_question(model, "what ?", 2), "what ?"]


@pytest.mark.filterwarnings("ignore:a document loses the end of its text")
def test_what_cannot_be_ranked():
    model = tiny.vila_u(max_length=40)
    images = to_float(tiny.images(1))
    for options, message in (
        ([], "1 questions have 0 sets of options and 1 images in 1 groups that add up to 1; give each"),
        ([()], "the question 'what ?' has 0 options to be ranked; give it 1 to 10, or ask for an answer"),
        ([["two", " "]], "an answer to be weighed is empty; give it words, or leave it out"),
        ([["two"] * 11], "has 11 options to be ranked"),
        ([["two", "red " * 30]], "does not fit the language model's max_length of 40 with what stands before"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=re.escape(message)):
            likeliest_letters(model, images, ["what ?"], options)
