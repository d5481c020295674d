from collections import Counter

import pytest
import torch

from tests.models import tiny
from vilau.models.language import text_tokenizer
from vilau.models.sequence.config import NULL_TOKEN as NULL
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.layout import SequenceLayout
from vilau.models.sequence.prompts import chat_segments
from vilau.types import Document, ImageSegment, TextSegment, VideoSegment

P = 3
WORDS = text_tokenizer(tiny.language())
SYSTEM = "a red circle."


def layout(system: str = "", form: str = "plain", max_length=None) -> SequenceLayout:
    prompt = PromptConfig(system=system, form=form)
    return SequenceLayout(WORDS, prompt, num_positions=P, max_length=max_length)


def shown(laid, row=0, only=None) -> str:
    """The row as text, with * for each visual position; ``only`` picks positions."""
    starts = {
        int(s): bool(t)
        for r, s, t in zip(laid.span_rows, laid.span_starts, laid.span_targets, strict=True)
        if r == row
    }
    pieces, visual = [], {s + i for s in starts for i in range(P)}
    for column, token in enumerate(laid.ids[row].tolist()):
        if laid.mask[row, column] and (only is None or only[row, column]):
            pieces.append("*" if column in visual else WORDS.decode([token]))
    return "".join(pieces)


def test_a_drawing_is_asked_for_by_the_user_and_drawn_by_the_assistant():
    laid = layout(SYSTEM).lay_out([tiny.drawing(7, "a blue square")])
    assert shown(laid) == (
        "<s>a red circle. USER: a blue square ASSISTANT:<im_start>***<im_end></s>"
    )
    assert shown(laid, only=laid.targets) == "<im_start><im_end></s>"
    start = int(laid.span_starts[0])
    assert laid.ids[0, start - 1] == WORDS.convert_tokens_to_ids("<im_start>")
    assert laid.ids[0, start + P] == WORDS.convert_tokens_to_ids("<im_end>")
    assert laid.span_images.tolist() == [7]
    assert laid.span_targets.tolist() == [True]


def test_a_caption_is_the_answer_to_an_image():
    laid = layout().lay_out([tiny.caption(2, "a blue square")])
    assert shown(laid) == ("<s>USER:<im_start>***<im_end> describe it ASSISTANT: a blue square</s>")
    assert shown(laid, only=laid.targets) == " a blue square</s>"
    assert laid.span_targets.tolist() == [False]


def test_turns_follow_one_another_with_one_system_sentence():
    document = Document(
        (
            ImageSegment(0),
            TextSegment("a"),
            TextSegment("red", target=True),
            TextSegment("two"),
            TextSegment("blue", target=True),
        )
    )
    laid = layout(SYSTEM).lay_out([document])
    assert shown(laid) == (
        "<s>a red circle. USER:<im_start>***<im_end> a ASSISTANT: red</s>"
        "USER: two ASSISTANT: blue</s>"
    )
    assert shown(laid, only=laid.targets) == " red</s> blue</s>"


def test_a_bare_document_has_no_turns_and_bears_loss_where_it_says():
    document = Document(
        (TextSegment("a red", target=True), ImageSegment(0), TextSegment("circle", target=True)),
        chat=False,
    )
    laid = layout(SYSTEM).lay_out([document])
    assert shown(laid) == "<s> a red<im_start>***<im_end> circle"
    assert shown(laid, only=laid.targets) == " a red circle"


def test_an_emptied_caption_is_the_null_prompt_of_drawing():
    document = Document((TextSegment(""), ImageSegment(0, target=True)))
    laid = layout(SYSTEM).lay_out([document])
    assert shown(laid) == "<s>a red circle. USER:ASSISTANT:<im_start>***<im_end></s>"
    null = layout(SYSTEM).drawing_prompts([""])
    assert shown(null) == "<s>a red circle. USER:ASSISTANT:<im_start>"


def test_empty_words_beside_an_image_leave_nothing_behind():
    document = Document((ImageSegment(0), TextSegment(" "), ImageSegment(1, target=True)))
    assert shown(layout().lay_out([document])) == (
        "<s>USER:<im_start>***<im_end> ASSISTANT:<im_start>***<im_end></s>"
    )


def test_drawing_prompts_pad_on_the_left_and_end_at_the_start_mark():
    laid = layout().drawing_prompts(["a red circle", ""])
    gap = int((laid.mask[1] == 0).sum())
    assert gap > 0
    assert laid.mask[1].tolist() == [0] * gap + [1] * (laid.ids.shape[1] - gap)
    assert (laid.ids[:, -1] == WORDS.convert_tokens_to_ids("<im_start>")).all()
    assert shown(laid, 0) == "<s>USER: a red circle ASSISTANT:<im_start>"
    assert not laid.targets.any()


def test_a_drawing_prompt_is_the_beginning_of_its_training_row():
    prompt = layout(SYSTEM).drawing_prompts(["a blue square"]).ids[0]
    row = layout(SYSTEM).lay_out([tiny.drawing(0, "a blue square")]).ids[0]
    assert torch.equal(row[: len(prompt)], prompt)


def test_answer_prompts_show_their_images_and_end_at_the_assistant():
    chats = [
        chat_segments("how many squares", [0], bare=False),
        [ImageSegment(1), TextSegment("red")],
    ]
    laid = layout().answer_prompts(chats)
    assert shown(laid, 0) == "<s>USER:<im_start>***<im_end> how many squares ASSISTANT:"
    assert shown(laid, 1) == "<s>USER:<im_start>***<im_end> red ASSISTANT:"
    assert laid.span_images.tolist() == [0, 1]
    for row, start in zip(laid.span_rows, laid.span_starts, strict=True):
        assert laid.ids[row, start - 1] == WORDS.convert_tokens_to_ids("<im_start>")
    without = layout().answer_prompts([[TextSegment("red")]])
    assert shown(without) == "<s>USER: red ASSISTANT:"
    assert len(without.span_rows) == 0


def test_a_chat_keeps_its_history():
    segments = chat_segments(["<image> red", "two", "blue"], [4], bare=False)
    laid = layout(SYSTEM).answer_prompts([segments])
    assert shown(laid) == (
        "<s>a red circle. USER:<im_start>***<im_end> red ASSISTANT: two</s>USER: blue ASSISTANT:"
    )


@pytest.mark.parametrize("form", ["plain", "published"])
def test_the_frames_of_a_clip_follow_one_another(form):
    space = " " if form == "published" else ""
    document = Document((TextSegment("two squares"), VideoSegment((3, 1), target=True)))
    laid = layout(form=form).lay_out([document])
    assert shown(laid).endswith(f" two squares ASSISTANT:{space}<vi_start>******<vi_end></s>")
    assert shown(laid, only=laid.targets) == f"{space}<vi_start><vi_end></s>"
    first, second = laid.span_starts.tolist()
    assert laid.ids[0, first - 1] == WORDS.convert_tokens_to_ids("<vi_start>")
    assert second == first + P
    assert laid.span_images.tolist() == [3, 1]
    assert laid.span_targets.tolist() == [True, True]
    prompt = layout(form=form).drawing_prompts(["two squares"], start="<vi_start>").ids[0]
    assert torch.equal(laid.ids[0, : len(prompt)], prompt)


def test_bare_images_and_clips_stand_without_tokens():
    document = Document(
        (
            ImageSegment(0, bare=True),
            VideoSegment((1, 2), bare=True),
            TextSegment("red", target=True),
        )
    )
    assert shown(layout().lay_out([document])) == "<s>USER:********* ASSISTANT: red</s>"


def test_a_masked_document_and_one_without_the_system_sentence():
    document = Document((TextSegment("a"), ImageSegment(0, target=True)), masked=True, system=False)
    for form in ("plain", "published"):
        laid = layout(SYSTEM, form=form).lay_out([document])
        assert "circle" not in shown(laid)
        assert not laid.targets.any()
        assert laid.span_targets.tolist() == [False]


def test_the_published_form_tokenises_from_image_to_image():
    document = Document(
        (ImageSegment(0), TextSegment("red"), TextSegment("two", target=True), TextSegment("blue"),
         TextSegment("a", target=True))
    )  # fmt: skip
    laid = layout(SYSTEM, form="published").lay_out([document])
    before = "a red circle. USER: <im_start>"
    after = "<im_end>\nred ASSISTANT: two</s>USER: blue ASSISTANT: a</s>"
    assert shown(laid) == f"<s>{before}***{after}"
    assert shown(laid, only=laid.targets) == " two</s> a</s>"
    pieces = [WORDS(piece, add_special_tokens=False)["input_ids"] for piece in (before, after)]
    assert laid.ids[0].tolist() == [WORDS.bos_token_id, *pieces[0], *[0] * P, *pieces[1]]


NAMES = ["<pad>", "<s>", "</s>", "<unk>", "<im_start>", "<im_end>", "<vi_start>", "<vi_end>", NULL]
NAMED = "now {0} two{0} red {0}"


@pytest.fixture(scope="module")
def with_null():
    """A tokenizer that knows the token of the learned null prompt too."""
    words = text_tokenizer(tiny.language())
    words.add_tokens([NULL], special_tokens=True)
    return words


def special(words, laid) -> list[int]:
    """The special tokens of a row, in order; a visual position looks like padding."""
    known = {words.convert_tokens_to_ids(name) for name in NAMES}
    return [token for token in laid.ids[0].tolist() if token in known]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["plain", "published"])
def test_the_name_of_a_special_token_is_mere_words_in_a_text(form, name, with_null):
    prompt = PromptConfig(system=SYSTEM, form=form, null="learned")
    own = SequenceLayout(with_null, prompt, num_positions=P)
    said, plain = NAMED.format(name), NAMED.format("blue")
    for build in (
        lambda text: own.lay_out([tiny.caption(0, text)]),
        lambda text: own.lay_out([tiny.drawing(0, text)]),
        lambda text: own.lay_out([Document((TextSegment(text, target=True),), chat=False)]),
        lambda text: own.drawing_prompts([text]),
        lambda text: own.answer_prompts([chat_segments(text, [0], bare=form == "published")]),
        lambda text: own.answer_prompts([chat_segments([text, text, text], [], bare=False)]),
    ):
        assert special(with_null, build(said)) == special(with_null, build(plain))
    # The whole of a text may be a name, but for the null prompt's, which asks for it.
    alone, blue = (
        Counter(special(with_null, own.drawing_prompts([text]))) for text in (f" {name} ", "blue")
    )
    assert list(alone - blue) == ([with_null.convert_tokens_to_ids(NULL)] if name == NULL else [])


@pytest.mark.parametrize("form", ["plain", "published"])
def test_the_words_of_the_form_keep_their_tokens(form):
    own = PromptConfig(system="two <im_end>", user="<s>USER:", form=form)
    laid = SequenceLayout(WORDS, own, num_positions=P).lay_out([tiny.caption(0)])
    assert "<s>two <im_end> <s>USER:" in shown(laid)


def test_a_long_document_loses_text_at_its_end():
    whole = layout().lay_out([tiny.caption(0, "a red circle and a blue square")])
    length = whole.ids.shape[1] - 2
    with pytest.warns(
        UserWarning, match=f"loses the end of its text.* max_length of {length}; shorten"
    ):
        cut = layout(max_length=length).lay_out([tiny.caption(0, "a red circle and a blue square")])
    assert torch.equal(cut.ids, whole.ids[:, :length])
    assert torch.equal(cut.targets, whole.targets[:, :length])
    assert torch.equal(cut.span_starts, whole.span_starts)
    assert (cut.dropped, cut.cut) == (0, 1)
    assert (whole.dropped, whole.cut) == (0, 0)


def test_a_document_that_would_lose_part_of_an_image_is_left_out_and_counted():
    clip = Document((TextSegment("red"), VideoSegment((0, 1), target=True)))
    room = int(layout().lay_out([clip]).span_starts[1]) + P
    assert layout(max_length=room).lay_out([clip]).span_starts.shape == (2,)  # </s> alone is cut
    with pytest.warns(
        UserWarning, match=f"max_length of {room - 1} it would lose part of an image"
    ):
        laid = layout(max_length=room - 1).lay_out([clip, tiny.caption(2), clip])
    assert laid.dropped == 2
    assert laid.span_images.tolist() == [2]
    with pytest.warns(UserWarning, match="left out"):
        nothing = layout(max_length=room - 1).lay_out([clip])
    assert not nothing.targets.any()
    assert nothing.ids.shape == (1, 1)


def test_documents_pad_on_the_right_and_padding_bears_no_loss():
    laid = layout().lay_out([tiny.drawing(0, "a red circle"), tiny.caption(1, "a")])
    assert laid.mask.sum(dim=1).tolist()[0] != laid.mask.sum(dim=1).tolist()[1]
    assert (laid.mask.diff(dim=1) <= 0).all()
    assert not (laid.targets & (laid.mask == 0)).any()
    assert laid.ids[laid.mask == 0].eq(0).all()


def test_spans_name_row_place_and_image_of_every_image():
    laid = layout().lay_out([tiny.caption(1), tiny.drawing(0)])
    assert laid.span_rows.tolist() == [0, 1]
    assert laid.span_images.tolist() == [1, 0]
    assert laid.span_targets.tolist() == [False, True]
