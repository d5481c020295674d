"""Documents that begin with the same images and go on from one reading of them: the same losses and gradients."""

from dataclasses import replace

import pytest
import torch

from tests.models import tiny
from tests.models.equal_rows import assert_equal_to_one_a_row
from tests.models.forms import FORMS, ask, draw, forms_batch, look, say
from vilau.errors import ConfigError
from vilau.layers.isolation import block_causal_mask, isolating_arguments
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.rows import Row, Span, sharing
from vilau.types import Document, MultimodalBatch, VideoSegment

P = 16
"""Positions of a tiny image."""


def about(shown, question="how many", answer="two", **settings):
    return Document((shown, ask(question), say(answer)), **settings)


def questions() -> list[Document]:
    """Three about one picture, two about another, two about a clip, and every other form."""
    clip = VideoSegment((5, 6))
    return [
        about(look(0)),
        about(look(1), "a red"),
        about(look(0), "describe it", "a red circle"),
        about(clip),
        *FORMS.values(),
        about(look(0), "is it", "a green star"),
        about(look(1), "is it", "red"),
        about(clip, "a star", "a"),
        Document((look(0), ask("a star"), draw(8))),
    ]


@pytest.mark.parametrize("form", ["plain", "published"])
@pytest.mark.parametrize("attention", ["sdpa", "lean", "eager"])
@pytest.mark.parametrize(("packing", "groups"), [(False, 1), (False, 3), (True, 1)])
def test_shared_equals_unshared(form, attention, packing, groups):
    prompt = PromptConfig(system="a red circle.", form=form)
    model = tiny.vila_u(prompt=prompt, max_length=256, attention=attention)
    batch = MultimodalBatch(tiny.images(10), questions())
    tokens = [
        sum(x.ids.numel() for x in model.sequence.lay_out_in(99, batch.documents, share_images=s))
        for s in (False, True)
    ]
    assert tokens[1] < tokens[0] - 4 * P
    assert_equal_to_one_a_row(
        model, batch, packing=packing, length_groups=groups, share_images=True
    )


def test_what_goes_on_from_a_picture_stands_behind_it_once():
    model = tiny.vila_u()
    documents = [about(look(0)), about(look(1)), about(look(0), "is it", "a star")]
    alone = [model.sequence.lay_out([document]) for document in documents]
    (layout,) = model.sequence.lay_out_in(1, documents, share_images=True)
    assert layout.ids.shape[0] == 2
    assert layout.span_images.tolist() == [0, 1]
    # The first row: what is shown, the rest of the first document, the rest of the third.
    shown = int(alone[0].span_starts[0]) + P
    lengths = [shown] + [alone[n].ids.shape[1] - shown for n in (0, 2)]
    assert layout.ids.shape[1] == sum(lengths)
    assert layout.documents[0].tolist() == [n for n in range(3) for _ in range(lengths[n])]
    assert layout.prefixes[0].unique().tolist() == [0]
    places = [*range(shown), *(shown + n for length in lengths[1:] for n in range(length))]
    assert layout.positions[0].tolist() == places
    # The second has one document and padding, which is told apart from it.
    end = alone[1].ids.shape[1]
    assert (
        layout.documents[1, end:].unique().tolist()
        == layout.prefixes[1, end:].unique().tolist()
        == [1]
    )
    assert layout.positions[1, :end].tolist() == list(range(end))


def test_packed_documents_that_share_nothing_name_no_beginnings():
    """Kernels that take lengths alone can pack them."""
    model = tiny.vila_u(max_length=256)
    documents = forms_batch("image to text", "text to image").documents
    (layout,) = model.sequence.lay_out_in(1, documents, packing=True, share_images=True)
    assert layout.ids.shape[0] == 1
    assert layout.documents is not None
    assert layout.prefixes is None


@pytest.mark.parametrize(
    "documents",
    [
        ["chat", "several images"],  # the second shows another picture too
        ["image to text", "masked"],
        ["text to image", "text to image"],  # nothing is shown before it is drawn
        ["interleaved", "interleaved"],  # what is said comes first
    ],
)
def test_documents_without_the_same_beginning_stay_apart(documents):
    model = tiny.vila_u()
    (layout,) = model.sequence.lay_out_in(1, forms_batch(*documents).documents, share_images=True)
    assert layout.ids.shape[0] == 2
    assert layout.documents is None


def test_a_text_that_follows_its_image_at_once_is_not_shared():
    """Its first token is predicted by the last place of the image, which only one document can follow."""
    bare = Document((look(0, bare=True), say("a star")), chat=False)
    model = tiny.vila_u()
    (layout,) = model.sequence.lay_out_in(1, [bare, bare], share_images=True)
    assert layout.ids.shape[0] == 2
    assert_equal_to_one_a_row(
        model, MultimodalBatch(tiny.images(1), [bare, bare]), share_images=True
    )


def test_rows_end_where_the_room_does():
    row = Row(
        [7] + [0] * P + [8, 9],
        [False] * (P + 2) + [True],
        [Span(1, P, 0, target=False, drawn=False)],
    )
    others = [Row([*row.ids[:-1], word], row.targets, row.spans) for word in (1, 2, 3)]
    found = sharing([row, *others], room=P + 1 + 2 * 2)
    assert [one.ids[P + 1 :] for one in found] == [[8, 9, 8, 1], [8, 2, 8, 3]]
    assert [len(one.ids) for one in sharing([row, *others])] == [P + 1 + 4 * 2]
    assert row.ids == [7] + [0] * P + [8, 9]  # what was given stays as it is


def test_another_question_changes_nothing():
    model = tiny.vila_u()
    images = tiny.images(1)
    alone = model.losses(MultimodalBatch(images, [about(look(0))])).sums["text"]
    one = replace(about(look(0), "is it red", "a green star"), masked=True)
    beside = MultimodalBatch(images, [one, about(look(0)), one])
    found = model.losses(beside, share_images=True).sums["text"]
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


def test_a_token_sees_what_its_document_goes_on_from():
    documents = torch.tensor([[0, 0, 1, 2, 2, 3]])
    prefixes = torch.tensor([[0, 0, 0, 0, 0, 3]])
    assert block_causal_mask(documents, prefixes)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    with pytest.raises(
        ConfigError, match="takes no mask, which documents that share their images need"
    ):
        isolating_arguments(
            "flash_attention_2", documents, dtype=torch.float32, prefixes_BT=prefixes
        )
    isolating_arguments("flash_attention_2", documents, dtype=torch.float32)


def test_questions_without_pictures_are_rows_of_their_own():
    model = tiny.vila_u()
    batch = MultimodalBatch(
        tiny.images(1)[:0],
        [Document((ask(text), say("a star"))) for text in ("is it", "a red")],
    )
    assert_equal_to_one_a_row(model, batch, packing=False, length_groups=1, share_images=True)
