"""The published strings, before any tokenizer (reference: VILA-U 3.2)."""

from itertools import count

import pytest

from vilau.errors import ConfigError, DataError
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.prompts import (
    Words,
    chat_parts,
    chat_segments,
    document_parts,
    marked_segments,
    open_turns,
    turns,
    without_marks,
)
from vilau.types import Document, ImageSegment, TextSegment, VideoSegment

PROMPT = PromptConfig(system="Be polite.", form="published")


def shown(parts) -> str:
    """Parts as one string: images as <0>, <1>, ...; what is learnt in braces."""
    text, learning = "", False
    for part in [*parts, Words("")]:
        if part.target != learning:
            text, learning = text + ("{" if part.target else "}"), part.target
        text += part.text if isinstance(part, Words) else f"<{part.image}>"
    return text


def document(*segments, **settings) -> str:
    return shown(document_parts(Document(segments, **settings), PROMPT, end="</s>"))


def image(index=0, **settings) -> ImageSegment:
    return ImageSegment(index, **settings)


def say(text) -> TextSegment:
    return TextSegment(text, target=True)


def test_a_question_about_an_image_with_and_without_its_tokens():
    assert document(image(), TextSegment("what is it"), say("a cat")) == (
        "Be polite. USER: <im_start><0><im_end>\nwhat is it ASSISTANT:{ a cat</s>}"
    )
    assert document(image(bare=True), TextSegment("what is it"), say("a cat")) == (
        "Be polite. USER: <0>\nwhat is it ASSISTANT:{ a cat</s>}"
    )


def test_a_drawing_a_clip_and_the_null_prompt():
    assert document(TextSegment("a cat"), image(target=True)) == (
        "Be polite. USER: a cat ASSISTANT:{ <im_start><0><im_end></s>}"
    )
    assert document(TextSegment("waves"), VideoSegment((0, 1, 2), target=True)) == (
        "Be polite. USER: waves ASSISTANT:{ <vi_start><0><1><2><vi_end></s>}"
    )
    assert document(TextSegment(" "), image(target=True)) == (
        "Be polite. USER:ASSISTANT:{ <im_start><0><im_end></s>}"
    )


def test_a_clip_to_be_read():
    asked = TextSegment("what happens")
    assert document(VideoSegment((0, 1), bare=True), asked, say("x")).startswith(
        "Be polite. USER: <0>\n<1>\nwhat happens ASSISTANT:"
    )
    # As in the release, which puts tokens around clips to be drawn alone.
    assert document(VideoSegment((0, 1)), asked, say("x")) == (
        document(VideoSegment((0, 1), bare=True), asked, say("x"))
    )
    between = document(
        TextSegment("look at"), VideoSegment((0, 1)), asked, say("x"), asked, say("y")
    )
    assert between.startswith(
        "Be polite. USER: look at <0>\n<1>\nwhat happens ASSISTANT:{ x</s>}USER"
    )
    clips = document(VideoSegment((0, 1)), VideoSegment((2, 3)), asked, say("x"))
    assert clips.startswith("Be polite. USER: <0>\n<1>\n<2>\n<3>\nwhat happens ASSISTANT:")
    assert document(VideoSegment((0, 1)), asked, chat=False) == (
        "<vi_start><0><1><vi_end>what happens</s>"
    )


def test_white_space_between_segments_is_the_published_loaders():
    assert document(TextSegment("look at"), image(0), image(1), TextSegment("both"), say("x")) == (
        "Be polite. USER: look at <im_start><0><im_end>\n <im_start><1><im_end>\nboth "
        "ASSISTANT:{ x</s>}"
    )
    assert document(TextSegment("one"), TextSegment("two "), TextSegment("three"), say(" x ")) == (
        "Be polite. USER: one two three ASSISTANT:{ x</s>}"
    )
    # What brings its own white space keeps it.
    own = [
        image(0, bare=True),
        TextSegment(" and "),
        image(1, bare=True),
        TextSegment("\n\nsame ? "),
    ]
    assert document(*own, say("x")).startswith("Be polite. USER: <0> and <1>\n\nsame ? ASSISTANT:")
    # An image that ends a turn needs no line break.
    assert document(TextSegment("this"), image(), say("x")).startswith(
        "Be polite. USER: this <im_start><0><im_end> ASSISTANT:"
    )


def test_turns_follow_one_another_without_a_space():
    assert document(TextSegment("a"), say("b"), TextSegment("c"), say("d")) == (
        "Be polite. USER: a ASSISTANT:{ b</s>}USER: c ASSISTANT:{ d</s>}"
    )


def test_the_space_after_a_dropped_system_sentence_stays():
    assert document(TextSegment("a"), say("b"), system=False) == " USER: a ASSISTANT:{ b</s>}"


def test_a_masked_document_is_read_alone():
    assert document(TextSegment("a"), image(target=True), masked=True) == (
        "Be polite. USER: a ASSISTANT: <im_start><0><im_end></s>"
    )


def test_web_documents_stand_as_they_are():
    assert document(say("First."), image(bare=True), say("Second."), say("Third."), chat=False) == (
        "{First.}<0>{Second. Third.</s>}"
    )
    assert document(TextSegment("read"), VideoSegment((0, 1), bare=True), chat=False) == (
        "read<0><1></s>"
    )


def test_a_chat_that_waits_ends_at_the_assistant():
    segments = chat_segments(["a", "b", "c"], [], bare=True)
    assert shown(chat_parts(open_turns(segments), PROMPT, end="</s>")) == (
        "Be polite. USER: a ASSISTANT:{ b</s>}USER: c ASSISTANT:"
    )


def test_marks_place_the_images_and_without_marks_they_come_first():
    assert chat_segments("what", [0, 1], bare=True) == [
        image(0, bare=True),
        image(1, bare=True),
        TextSegment("what"),
    ]
    shots = ["<image>\none", "two", "<image>\nthree"]
    assert chat_segments(shots, [5, 6], bare=False) == [
        image(5),
        TextSegment("\none"),
        say("two"),
        image(6),
        TextSegment("\nthree"),
    ]
    assert chat_segments(["", "", "a"], [], bare=True) == [
        TextSegment(""),
        say(""),
        TextSegment("a"),
    ]


def test_marks_with_their_tokens_are_images_and_clips():
    text = "<image> <im_start><image><im_end><vi_start><image><image><vi_end>!"
    assert marked_segments(text, count(2), bare=True) == [
        image(2, bare=True),
        TextSegment(" "),
        image(3),
        VideoSegment((4, 5)),
        TextSegment("!"),
    ]
    assert marked_segments("<image>", count(), target=True, bare=True) == [image(target=True)]


@pytest.mark.parametrize(
    ("chat", "told"),
    [
        (["a", "b"], "prompt has 2 turns.*ending with the user"),
        ([], "prompt has 0 turns"),
        ("<image> a", "prompt has 1 <image> marks for 2 images; write one mark per image, or none"),
        (["<image><image>", "b", "<image>"], "prompt has 3 <image> marks for 2 images"),
    ],
)
def test_chats_that_do_not_fit_are_refused(chat, told):
    with pytest.raises(DataError, match=told):
        chat_segments(chat, [0, 1], bare=True)


@pytest.mark.parametrize(
    "segments", [(), (TextSegment("a"),), (TextSegment("b", target=True), TextSegment("a"))]
)
def test_a_chat_without_an_answer_is_an_error(segments):
    with pytest.raises(
        DataError, match="ends without a target segment; give its last turn an answer"
    ):
        turns(segments)


def test_segments_and_forms_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="ImageSegment is both target and bare.*write bare=False"):
        ImageSegment(0, target=True, bare=True)
    with pytest.raises(DataError, match="VideoSegment has no indices; give one row"):
        VideoSegment(())
    with pytest.raises(ConfigError, match="prompt.form is 'v1'; write plain or published"):
        PromptConfig(form="v1")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<image>\nwhat is it ?", "what is it ?"),
        ("<vi_start><image><image><vi_end>\nwhat moves ?", "what moves ?"),
        ("is <image> like <im_start><image><im_end> ?", "is like ?"),
        ("look <image>\n", "look"),
        (" two\n lines ", " two\n lines "),  # no mark, nothing changed
        ("<image>", ""),
    ],
)
def test_a_text_without_its_marks(text, left):
    assert without_marks(text) == left
