"""Losses of VILA-U against a slow computation of our own, and what they leave alone."""

import pytest
import torch

from tests.models import tiny
from vilau.layers.pixels import to_float
from vilau.models.loading import load
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment, VideoSegment


@pytest.fixture(scope="module")
def model():
    return tiny.vila_u()


def embedded(model, pieces, codes):
    """Embeddings and ids of a row given as text pieces and image indices; None ids under images."""
    vectors, ids = [], []
    for piece in pieces:
        if isinstance(piece, int):
            summed = model.tokenizer.quantizer.codebook.weight[codes[piece]].sum(dim=1)  # (P, Z)
            vectors.append(model.projector(summed))
            ids += [None] * len(summed)
        else:
            found = model.words(piece, add_special_tokens=False)["input_ids"]
            vectors.append(model.language.model.embed_tokens(torch.tensor(found)))
            ids += found
    return torch.cat(vectors), ids


def depth_logits(model, hidden, codes):
    """Logits of one position's codes, each from its own pass over the depths before it."""
    head, table, rows = model.head, model.tokenizer.quantizer.codebook.weight, []
    for d in range(len(codes)):
        inputs = [head.hidden_projection(hidden)]
        for before in range(1, d + 1):
            inputs.append(head.code_projection(sum(table[c] for c in codes[:before])))
        x = torch.stack(inputs)[None] + head.depth_embedding[:, : d + 1]
        for block in head.blocks:
            x = block(x)
        rows.append(head.classifier(head.norm(x[0, -1])))
    return rows


def slow_losses(model, pieces, targets, images):
    """Sums of text and visual cross entropy of one row; ``targets`` tells which pieces bear loss."""
    codes = model.tokenizer.encode(to_float(images))
    vectors, ids = embedded(model, pieces, codes)
    bears = []
    for piece, target in zip(pieces, targets, strict=True):
        size = (
            16
            if isinstance(piece, int)
            else len(model.words(piece, add_special_tokens=False)["input_ids"])
        )
        bears += [target] * size
    hidden = model.language.model(inputs_embeds=vectors[None]).last_hidden_state[0]
    text, visual, place = 0.0, 0.0, 0
    drawn = [
        codes[piece]
        for piece, t in zip(pieces, targets, strict=True)
        if isinstance(piece, int) and t
    ]
    drawn = torch.cat(drawn) if drawn else None
    for column in range(1, len(ids)):
        if not bears[column]:
            continue
        if ids[column] is None:
            for d, logits in enumerate(depth_logits(model, hidden[column - 1], drawn[place])):
                visual -= logits.log_softmax(dim=-1)[drawn[place, d]]
            place += 1
        else:
            logits = model.language.lm_head(hidden[column - 1])
            text -= logits.log_softmax(dim=-1)[ids[column]]
    return text, visual


DRAWING = (
    ["<s>USER:", " a red circle", " ASSISTANT:", "<im_start>", 0, "<im_end></s>"],
    [0, 0, 0, 1, 1, 1],
)
CAPTION = (
    ["<s>USER:", "<im_start>", 1, "<im_end>", " describe it", " ASSISTANT:", " a blue square</s>"],
    [0, 0, 0, 0, 0, 0, 1],
)


def test_equals_a_slow_computation(model):
    images = tiny.images(2)
    terms = model.losses(MultimodalBatch(images, [tiny.drawing(0), tiny.caption(1)]))
    with torch.no_grad():
        drawn, described = (slow_losses(model, *row, images) for row in (DRAWING, CAPTION))
    torch.testing.assert_close(terms.sums["visual"], drawn[1], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(terms.sums["text"], drawn[0] + described[0], rtol=1e-5, atol=1e-4)
    assert described[1] == 0.0
    assert terms.counts["visual"] == 16 * 3
    answer = model.words(" a blue square", add_special_tokens=False)["input_ids"]
    assert terms.counts["text"] == 3 + len(answer) + 1
    means = terms.means()
    torch.testing.assert_close(
        terms.total({"text": 2.0, "visual": 0.5}), 2.0 * means["text"] + 0.5 * means["visual"]
    )


def test_a_batch_is_the_sum_of_its_documents(model):
    images, documents = (
        tiny.images(2),
        [tiny.drawing(0), tiny.caption(1, "a green star left of it")],
    )
    together = model.losses(MultimodalBatch(images, documents))
    alone = [model.losses(MultimodalBatch(images, [d])) for d in documents]
    for name in ("text", "visual"):
        torch.testing.assert_close(together.sums[name], sum(a.sums[name] for a in alone))
        assert together.counts[name] == sum(a.counts[name] for a in alone)


def test_loss_comes_from_targets_alone(model):
    images = tiny.images(2)
    context_only = Document((TextSegment("a red"), ImageSegment(0)), chat=False)
    terms = model.losses(MultimodalBatch(images, [context_only]))
    assert terms.counts == {"text": 0.0, "visual": 0.0}
    assert terms.total() == 0
    # What is read changes the state, never which predictions are counted.
    first, second = (
        model.losses(MultimodalBatch(images, [tiny.caption(1, text)])) for text in ("two", "red")
    )
    assert first.counts == second.counts
    assert first.sums["text"] != second.sums["text"]


def test_the_first_token_of_a_row_bears_no_loss_without_a_beginning_mark(model, monkeypatch):
    monkeypatch.setattr(model.sequence, "opening", list)
    words = Document((TextSegment("red circle", target=True),), chat=False)
    longer = Document((TextSegment("a red circle and two squares", target=True),), chat=False)
    alone = model.losses(MultimodalBatch(tiny.images(1), [words]))
    padded = model.losses(MultimodalBatch(tiny.images(1), [words, longer]))
    other = model.losses(MultimodalBatch(tiny.images(1), [longer]))
    assert alone.counts["text"] == 1
    torch.testing.assert_close(padded.sums["text"], alone.sums["text"] + other.sums["text"])


@pytest.mark.parametrize(
    "documents",
    [[tiny.drawing(0)], [tiny.caption(0)], [tiny.multimodal().documents[2]]],
    ids=["drawing", "caption", "words alone"],
)
def test_every_rank_touches_every_weight_whatever_its_batch(documents):
    model = tiny.vila_u().train()
    model.losses(MultimodalBatch(tiny.images(1), documents)).total().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("tokenizer."), name
    drawn = any(s.target and isinstance(s, ImageSegment) for s in documents[0].segments)
    for name, parameter in model.head.named_parameters():
        if "key.bias" not in name:  # softmax does not see a shift of all keys
            assert bool(parameter.grad.any()) == drawn, name
    looked = any(isinstance(s, ImageSegment) for s in documents[0].segments)
    assert bool(model.projector[0].weight.grad.any()) == looked


def test_float_images_are_taken_as_they_are(model):
    batch = tiny.multimodal()
    exact = model.losses(batch)
    scaled = model.losses(MultimodalBatch(to_float(batch.images), batch.documents))
    assert torch.equal(scaled.sums["visual"], exact.sums["visual"])


def test_a_clip_is_learnt_frame_after_frame(model):
    """The state at the last position of a frame predicts the first position of the next."""
    images, words = tiny.images(2), TextSegment("a red circle")
    clip = Document((words, VideoSegment((0, 1), target=True)))
    terms = model.losses(MultimodalBatch(images, [clip]))
    with torch.no_grad():
        _, whole = slow_losses(
            model,
            ["<s>USER:", " a red circle", " ASSISTANT:", "<vi_start>", 0, 1, "<vi_end></s>"],
            [0, 0, 0, 1, 1, 1, 1],
            images,
        )
    torch.testing.assert_close(terms.sums["visual"], whole, rtol=1e-5, atol=1e-4)
    assert terms.counts["visual"] == 2 * 16 * 3


def test_documents_that_are_too_long_bear_no_loss_and_are_counted():
    model = tiny.vila_u(max_length=30)
    with pytest.warns(UserWarning, match="left out"):
        terms = model.losses(MultimodalBatch(tiny.images(2), [tiny.drawing(0, "red " * 20)]))
    assert terms.dropped == 1
    assert terms.counts == {"text": 0.0, "visual": 0.0}
    assert terms.total() == 0
    long = Document((TextSegment("a"), TextSegment("red " * 40, target=True)))
    cut = model.losses(MultimodalBatch(tiny.images(1), [tiny.drawing(0, "red"), long]))
    assert cut.dropped == 0
    assert cut.sums["text"].isfinite()


def test_a_batch_without_images(model):
    batch = MultimodalBatch(tiny.images(0), [tiny.multimodal().documents[2]])
    terms = model.losses(batch)
    assert terms.sums["text"].isfinite()


def test_the_tower_is_frozen_and_its_codebook_still():
    model = tiny.vila_u()
    before = {k: v.clone() for k, v in model.tokenizer.state_dict().items()}
    model.train()
    assert model.head.training
    assert not any(part.training for part in model.tokenizer.modules())
    model.losses(tiny.multimodal()).total().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert all(torch.equal(v, before[k]) for k, v in model.tokenizer.state_dict().items())


def test_one_batch_is_learnt_by_heart():
    model = tiny.vila_u().train()
    batch = MultimodalBatch(tiny.images(2), [tiny.drawing(0), tiny.caption(1)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(100):
        terms = model.losses(batch)
        optimizer.zero_grad()
        terms.total().backward()
        optimizer.step()
        losses.append({name: float(v.detach()) for name, v in terms.means().items()})
    assert losses[-1]["text"] < 0.5 * losses[0]["text"]
    assert losses[-1]["visual"] < 0.5 * losses[0]["visual"]
    model.eval()
    drawn = model.generate_images("a red circle", guidance_scale=1.0, temperature=0)
    wanted = model.tokenizer.decode(model.tokenizer.encode(to_float(batch.images[:1])))
    other = model.tokenizer.decode(model.tokenizer.encode(to_float(batch.images[1:])))
    assert (drawn - wanted).square().mean() < 0.3 * (drawn - other).square().mean()
    answer = model.generate_text(to_float(batch.images[1:]), "describe it", max_new_tokens=8)
    assert answer == "a blue square"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_whole_model_works_in_other_dtypes(tmp_path, dtype):
    tiny.vila_u().save(tmp_path)
    model = load(tmp_path, dtype=dtype)
    exact = tiny.vila_u().losses(tiny.multimodal()).means()
    for name, mean in model.losses(tiny.multimodal()).means().items():
        torch.testing.assert_close(mean, exact[name], rtol=0.05, atol=0.05)
