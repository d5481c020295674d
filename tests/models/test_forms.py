"""What each form of document reads like and which of it bears loss: the part in braces, * for a visual position."""

import pytest

from tests.models import tiny
from tests.models.forms import FORMS
from vilau.models.language import text_tokenizer
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.layout import SequenceLayout

P = 3
WORDS = text_tokenizer(tiny.language())
BEGIN = "<s>two. "

PLAIN = {
    "image to text": "USER:<im_start>***<im_end> describe it ASSISTANT:{ a red circle</s>}",
    "text to image": "USER: a blue square ASSISTANT:{<im_start>***<im_end></s>}",
    "text to video": "USER: two squares ASSISTANT:{<vi_start>*********<vi_end></s>}",
    "text only": "USER:ASSISTANT:{ a green star</s>}",
    "video to text": "USER:<vi_start>******<vi_end> how many ASSISTANT:{ two squares</s>}",
    "chat": (
        "USER:<im_start>***<im_end> how many ASSISTANT:{ two</s>}"
        "USER: a red ASSISTANT:{ circle</s>}USER: is it ASSISTANT:{ a</s>}"
    ),
    "several images": (
        "USER:<im_start>***<im_end> and<im_start>***<im_end> are ASSISTANT:{ a star</s>}"
    ),
    "few-shot": (
        "USER:<im_start>***<im_end> is red<im_start>***<im_end> is blue<im_start>***<im_end> is "
        "ASSISTANT:{ green</s>}"
    ),
    "read and draw": (
        "USER:<im_start>***<im_end> how many ASSISTANT:{ two</s>}"
        "USER: a star ASSISTANT:{<im_start>***<im_end></s>}USER: is it red ASSISTANT:{ a</s>}"
    ),
    "say and draw": "USER: a red circle ASSISTANT:{ two<im_start>***<im_end> three</s>}",
    "masked": "USER: a star ASSISTANT:<im_start>***<im_end></s>",
}
PUBLISHED = {
    "image to text": "USER: <im_start>***<im_end>\ndescribe it ASSISTANT:{ a red circle</s>}",
    "text to image": "USER: a blue square ASSISTANT:{ <im_start>***<im_end></s>}",
    "text to video": "USER: two squares ASSISTANT:{ <vi_start>*********<vi_end></s>}",
    "text only": "USER:ASSISTANT:{ a green star</s>}",
    "video to text": "USER: ***\n***\nhow many ASSISTANT:{ two squares</s>}",
    "chat": (
        "USER: <im_start>***<im_end>\nhow many ASSISTANT:{ two</s>}"
        "USER: a red ASSISTANT:{ circle</s>}USER: is it ASSISTANT:{ a</s>}"
    ),
    "several images": (
        "USER: <im_start>***<im_end>\nand <im_start>***<im_end>\nare ASSISTANT:{ a star</s>}"
    ),
    "few-shot": (
        "USER: <im_start>***<im_end>\nis red <im_start>***<im_end>\nis blue "
        "<im_start>***<im_end>\nis ASSISTANT:{ green</s>}"
    ),
    "read and draw": (
        "USER: <im_start>***<im_end>\nhow many ASSISTANT:{ two</s>}"
        "USER: a star ASSISTANT:{ <im_start>***<im_end></s>}USER: is it red ASSISTANT:{ a</s>}"
    ),
    "say and draw": "USER: a red circle ASSISTANT:{ two <im_start>***<im_end>\nthree</s>}",
    "masked": "USER: a star ASSISTANT: <im_start>***<im_end></s>",
}
BARE = {
    ("interleaved", "plain"): "<s>{ a red}<im_start>***<im_end>{ circle and}***{ two}",
    ("interleaved", "published"): "<s>{a red}<im_start>***<im_end>{circle and}***{two</s>}",
    ("web text", "plain"): "<s>{ a green star}",
    ("web text", "published"): "<s>{a green star</s>}",
}
EXPECTED = {
    **{(name, "plain"): BEGIN + text for name, text in PLAIN.items()},
    **{(name, "published"): BEGIN + text for name, text in PUBLISHED.items()},
    **BARE,
}


def laid_out(document, form):
    layout = SequenceLayout(WORDS, PromptConfig(system="two.", form=form), num_positions=P)
    return layout.lay_out([document])


def shown(laid) -> str:
    spans = zip(laid.span_starts.tolist(), laid.span_targets.tolist(), strict=True)
    visual = {start + place: target for start, target in spans for place in range(P)}
    text, learning = "", False
    for column, token in enumerate(laid.ids[0].tolist()):
        target = visual.get(column, bool(laid.targets[0, column]))
        text += ("{" if target else "}") if target != learning else ""
        text += "*" if column in visual else WORDS.decode([token])
        learning = target
    return text + ("}" if learning else "")


def test_every_form_is_expected():
    assert EXPECTED.keys() == {(name, form) for name in FORMS for form in ("plain", "published")}


@pytest.mark.parametrize(("name", "form"), EXPECTED)
def test_what_bears_loss(name, form):
    assert shown(laid_out(FORMS[name], form)) == EXPECTED[name, form]


@pytest.mark.parametrize(("name", "form"), EXPECTED)
def test_every_prediction_has_the_state_before_it(name, form):
    laid = laid_out(FORMS[name], form)
    assert laid.text_columns.tolist() == laid.targets[0].nonzero()[:, 0].tolist()
    assert laid.text_columns.numel() == 0 or int(laid.text_columns.min()) > 0
    for start, sources in zip(laid.span_starts.tolist(), laid.span_sources.tolist(), strict=True):
        assert sources == [start - 1 + place for place in range(P)]
