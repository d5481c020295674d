"""Packed rows: the same losses and gradients as one document a row, whatever is packed with what."""

from itertools import combinations, pairwise

import pytest
import torch
from transformers import AttentionInterface

from tests.models import tiny
from tests.models.equal_rows import assert_equal_to_one_a_row, sums_and_gradients
from tests.models.forms import FORMS, forms_batch
from vilau.errors import ConfigError, DataError
from vilau.layers.isolation import block_causal_mask, isolating_arguments
from vilau.models.sequence.config import PromptConfig
from vilau.models.sequence.rows import first_fit, similar
from vilau.types import MultimodalBatch

ROOM = 128


def assert_packed_equals_unpacked(model, batch):
    assert_equal_to_one_a_row(model, batch, packing=True)


@pytest.mark.parametrize("form", ["plain", "published"])
@pytest.mark.parametrize("attention", ["sdpa", "lean", "eager"])
def test_packed_equals_unpacked_for_all_forms_together(form, attention):
    prompt = PromptConfig(system="a red circle.", form=form)
    model = tiny.vila_u(prompt=prompt, max_length=ROOM, attention=attention)
    batch = forms_batch()
    layout = model.sequence.lay_out(batch.documents, packing=True)
    assert layout.ids.shape[0] < len(batch.documents) / 2
    assert layout.ids.shape[1] <= ROOM
    assert layout.dropped == layout.cut == 0
    assert_packed_equals_unpacked(model, batch)


@pytest.fixture(scope="module")
def model():
    return tiny.vila_u(max_length=3 * ROOM)


@pytest.mark.parametrize("form", FORMS)
def test_packed_equals_unpacked_for_each_form_beside_itself(model, form):
    batch = forms_batch(form, form, form)
    assert model.sequence.lay_out(batch.documents, packing=True).ids.shape[0] == 1
    assert_packed_equals_unpacked(model, batch)


@pytest.mark.parametrize("attention", ["sdpa", "lean"])
@pytest.mark.parametrize(("groups", "packing"), [(2, False), (3, False), (99, False), (2, True)])
def test_groups_of_similar_length_compute_the_same(attention, groups, packing):
    model = tiny.vila_u(max_length=3 * ROOM, attention=attention)
    batch = forms_batch()
    layouts = model.sequence.lay_out_in(groups, batch.documents, packing=packing)
    rows = sum(layout.ids.shape[0] for layout in layouts)
    assert len(layouts) == min(groups, rows)
    assert sum(layout.ids.numel() for layout in layouts) < (
        model.sequence.lay_out(batch.documents, packing=packing).ids.numel()
    )
    assert_equal_to_one_a_row(model, batch, packing=packing, length_groups=groups)


def test_the_best_parting_by_length():
    """Against all partings of the sorted rows, counted out."""
    generator = torch.Generator().manual_seed(0)
    for count in range(1, 9):
        lengths = torch.randint(1, 60, (count,), generator=generator).tolist()
        for groups in range(1, 5):
            found = similar(lengths, groups)
            assert sorted(n for group in found for n in group) == list(range(count))
            assert len(found) == min(groups, count)
            tall = sorted(lengths, reverse=True)
            fewest = min(
                sum((b - a) * tall[a] for a, b in pairwise((0, *cuts, count)))
                for cuts in combinations(range(1, count), min(groups, count) - 1)
            )
            assert sum(len(g) * max(lengths[n] for n in g) for g in found) == fewest


def varlen(
    module, query, key, value, mask, scaling, cu_seq_lens_q, cu_seq_lens_k, max_length_q, **_
):
    """Attention document by document, from what flash attention is told."""
    assert mask is None
    assert query.shape[0] == 1
    assert torch.equal(cu_seq_lens_q, cu_seq_lens_k)
    assert cu_seq_lens_q.dtype == torch.int32
    assert max_length_q == int(cu_seq_lens_q.diff().max())
    pieces = [part.split(cu_seq_lens_q.diff().tolist(), dim=2) for part in (query, key, value)]
    out = [
        torch.nn.functional.scaled_dot_product_attention(*qkv, scale=scaling, is_causal=True)
        for qkv in zip(*pieces, strict=True)
    ]
    return torch.cat(out, dim=2).transpose(1, 2), None


def test_kernels_that_are_told_lengths_compute_the_same(model, monkeypatch):
    """Flash attention itself needs a GPU; what it is told is followed here by a slow stand-in."""
    monkeypatch.setattr(model.sequence, "max_length", ROOM)
    batch = forms_batch()
    sums, counts, grads = sums_and_gradients(model, batch, packing=False)
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", varlen)
    monkeypatch.setattr(model.language.config, "_attn_implementation", "flash_attention_2")
    told, told_counts, told_grads = sums_and_gradients(model, batch, packing=True)
    assert told_counts == counts
    for name in sums:
        torch.testing.assert_close(told[name], sums[name], rtol=1e-5, atol=1e-4)
    for name in grads:
        torch.testing.assert_close(told_grads[name], grads[name], rtol=1e-4, atol=1e-4, msg=name)


def test_a_document_does_not_feel_its_neighbours(model):
    """Another neighbour, in front or behind, leaves the states of a document as they are."""
    images, drawing = tiny.images(3), tiny.drawing(0)
    alone = model.losses(MultimodalBatch(images, [drawing]), packing=True).sums["visual"]
    for others in ([tiny.caption(1)], [tiny.caption(2, "two")], [tiny.caption(1), tiny.caption(2)]):
        for documents in ([drawing, *others], [*others, drawing]):
            found = model.losses(MultimodalBatch(images, documents), packing=True).sums["visual"]
            torch.testing.assert_close(found, alone, rtol=1e-6, atol=1e-5)


def test_positions_and_documents_of_a_packed_row(model, monkeypatch):
    monkeypatch.setattr(model.sequence, "max_length", 60)
    documents = [tiny.drawing(0), tiny.caption(1), tiny.multimodal().documents[2]]
    layout = model.sequence.lay_out(documents, packing=True)
    lengths = [model.sequence.lay_out([d]).ids.shape[1] for d in documents]
    rows = first_fit(lengths, 60)
    assert sorted(map(len, rows)) == [1, 2]
    assert layout.ids.shape == (2, max(sum(lengths[d] for d in row) for row in rows))
    for row, inside in enumerate(rows):
        own, positions = [], []
        for number, document in enumerate(inside):
            own += [number] * lengths[document]
            positions += range(lengths[document])
        padding = layout.ids.shape[1] - len(own)
        assert layout.documents[row].tolist() == own + [len(inside)] * padding
        assert layout.positions[row].tolist() == positions + list(range(padding))
    # What predicts a code or a token is of the same document, one place before it.
    bos = model.words.bos_token_id
    assert not layout.targets[layout.ids == bos].any()
    sources = layout.span_sources
    for span, row in enumerate(layout.span_rows.tolist()):
        places = torch.arange(16) + layout.span_starts[span]
        assert torch.equal(sources[span], places - 1)
        assert layout.documents[row, sources[span]].unique().numel() == 1


def test_the_first_token_of_a_packed_document_bears_no_loss_without_a_beginning_mark(
    model, monkeypatch
):
    monkeypatch.setattr(model.sequence, "opening", list)
    assert_packed_equals_unpacked(model, forms_batch("web text", "web text", "interleaved"))
    terms = model.losses(forms_batch("web text", "web text"), packing=True)
    words = model.words(" a green star", add_special_tokens=False)["input_ids"]
    assert terms.counts["text"] == 2 * (len(words) - 1)


def test_documents_go_into_the_first_row_with_room_the_longest_first():
    assert first_fit([3, 8, 2, 5, 1], 10) == [[1, 2], [0, 3, 4]]
    assert first_fit([4, 4, 4], 4) == [[0], [1], [2]]
    assert first_fit([], 4) == []
    lengths = torch.randint(1, 100, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = first_fit(lengths, 128)
    assert sorted(n for row in rows for n in row) == list(range(200))
    assert all(sum(lengths[n] for n in row) <= 128 for row in rows)
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 128) + 1


def test_what_is_too_long_is_dropped_or_cut_when_packed_as_well(model, monkeypatch):
    monkeypatch.setattr(model.sequence, "max_length", 40)
    batch = MultimodalBatch(
        tiny.images(2), [tiny.drawing(0, "red " * 40), tiny.caption(1, "red " * 40), tiny.drawing(1)]
    )  # fmt: skip
    for packing in (False, True):
        with pytest.warns(UserWarning, match="max_length of 40"):
            terms = model.losses(batch, packing=packing)
        assert (terms.dropped, terms.cut) == (1, 1)
        assert terms.counts["visual"] == 16 * 3
        assert terms.counts == model.count_targets(batch.documents)
    with pytest.warns(UserWarning, match="left out"):
        nothing = model.losses(MultimodalBatch(tiny.images(1), batch.documents[:1]), packing=True)
    assert nothing.counts == {"text": 0, "visual": 0}


def test_counts_are_known_without_a_forward():
    for form in ("plain", "published"):
        model = tiny.vila_u(prompt=PromptConfig(system="", form=form))
        batch = forms_batch()
        assert model.count_targets(batch.documents) == model.losses(batch).counts


def test_a_token_sees_the_past_of_its_own_document():
    documents = torch.tensor([[0, 0, 1, 1, 1, 2]])
    assert block_causal_mask(documents)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    two = torch.tensor([[0, 0, 1], [0, 1, 1]])
    told = isolating_arguments("flash_attention_2", two, dtype=torch.float32)
    assert told["cu_seq_lens_q"].tolist() == [0, 2, 3, 4, 6]
    assert told["max_length_q"] == 2


def test_kernels_that_cannot_keep_documents_apart_are_refused(model, monkeypatch):
    monkeypatch.setattr(model.language.config, "_attn_implementation", "paged_attention")
    with pytest.raises(
        ConfigError, match="packing is true, but with language.attention paged_att.*write sdpa"
    ):
        model.losses(forms_batch("text only"), packing=True)


def test_a_row_without_a_length_cannot_be_packed(model, monkeypatch):
    monkeypatch.setattr(model.sequence, "max_length", None)
    with pytest.raises(
        ConfigError, match="packing is true, but the language model has no max_length"
    ):
        model.losses(forms_batch("text only"), packing=True)


def test_documents_that_refer_to_images_which_are_not_there(model):
    with pytest.raises(DataError, match="refers to image 2 of its batch, which holds 2; give one"):
        model.losses(MultimodalBatch(tiny.images(2), [tiny.drawing(0), tiny.caption(2)]))
