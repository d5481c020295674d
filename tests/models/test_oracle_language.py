"""The whole model against recorded outputs of the published code (tiny random weights, float32)."""

import json
from itertools import count
from pathlib import Path

import pytest
import torch

import vilau
from vilau.generation.guidance import Guidance
from vilau.generation.text import decode_tokens
from vilau.models.next_token.drawing import draw_codes
from vilau.models.sequence.prompts import chat_segments, marked_segments
from vilau.models.vila_u.published.names import head_state, projector_state
from vilau.types import Document, MultimodalBatch

ORACLES = Path(__file__).parents[3] / "shared" / "oracles"
CHECKPOINT, EXPECTED = ORACLES / "vila-u-tiny", ORACLES / "vila-u-tiny-expected.pt"
pytestmark = pytest.mark.skipif(
    not EXPECTED.is_file() or not CHECKPOINT.is_dir(), reason=f"no recorded outputs in {ORACLES}"
)
SAMPLES = ["understand", "generate", "video_generate", "video_understand", "text_only"]
IMAGE = -200
"""What the published code writes where an image stands."""


@pytest.fixture(scope="module")
def recorded():
    return torch.load(EXPECTED, weights_only=True)


@pytest.fixture(scope="module")
def model():
    return vilau.load(CHECKPOINT)


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def document(sample, images=None) -> Document:
    """A recorded conversation; its images are the next of ``images``."""
    images = count() if images is None else images
    segments = [
        segment
        for turn in json.loads(sample["conversation"])
        for segment in marked_segments(
            turn["value"], images, target=turn["from"] == "gpt", bare=True
        )
    ]
    return Document(tuple(segments))


def published_ids(model, layout):
    """Ids and labels of row 0 as the published code writes them: one mark for each image."""
    starts = dict(zip(layout.span_starts.tolist(), layout.span_targets.tolist(), strict=True))
    ids, labels, column = [], [], 0
    while column < layout.ids.shape[1]:
        image = column in starts
        ids.append(IMAGE if image else int(layout.ids[0, column]))
        target = starts[column] if image else bool(layout.targets[0, column])
        labels.append(ids[-1] if target else -100)
        column += model.sequence.num_positions if image else 1
    return ids, labels


# ---------------------------------------------------------------------- sequences


@pytest.mark.parametrize("kind", SAMPLES)
def test_ids_and_labels_of_training_samples(model, recorded, kind):
    sample = recorded["samples"][kind]
    ids, labels = published_ids(model, model.sequence.lay_out([document(sample)]))
    assert ids == sample["input_ids"].tolist()
    assert labels == sample["labels"].tolist()


@pytest.mark.parametrize(
    ("kind", "prompt", "start"),
    [
        ("gen_image", "a snowy mountain", "<im_start>"),
        ("uncond_image", " ", "<im_start>"),
        ("gen_video", "fireworks", "<vi_start>"),
        ("uncond_video", "", "<vi_start>"),
    ],
)
def test_ids_of_drawing_prompts(model, recorded, kind, prompt, start):
    ids, _ = published_ids(model, model.sequence.drawing_prompts([prompt], start=start))
    assert ids == recorded["inference_prompts"][kind]["ids"].flatten().tolist()


@pytest.mark.parametrize("prompt", ["what is shown here", "<image>\nwhat is shown here"])
def test_ids_of_a_question(model, recorded, prompt):
    layout = model.sequence.answer_prompts([chat_segments(prompt, [0], bare=True)])
    ids, _ = published_ids(model, layout)
    assert ids == recorded["inference_prompts"]["ask"]["ids"].flatten().tolist()


def test_a_piece_that_begins_with_a_space_gets_another(model):
    """SentencePiece puts one before every piece; the release's tokenizer did not leave it out."""
    spaced = document(
        {"conversation": '[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]'}
    )
    row = model.sequence.lay_out([Document(spaced.segments, system=False)]).ids[0]
    words = model.words.convert_ids_to_tokens(row.tolist())
    assert words[:4] == ["<s>", "\u2581", "\u2581U", "S"]


# ---------------------------------------------------------------------- losses


def batch_of(recorded, record) -> MultimodalBatch:
    """The recorded micro-batch as documents: its rows are padded samples."""
    images, documents = count(), []
    for row in record["batch"]["input_ids"]:
        samples = recorded["samples"].values()
        fits = [s for s in samples if torch.equal(row[: len(s["input_ids"])], s["input_ids"])]
        documents.append(document(fits[0], images))
    return MultimodalBatch(record["batch"]["images"], documents)


def own_names(grads):
    """Recorded gradients by the names of our parameters."""
    tower, projector = "vision_tower.vision_tower.", "mm_projector."
    head = {k.removeprefix(tower): v for k, v in grads.items() if k.startswith(tower)}
    linear = {k.removeprefix(projector): v for k, v in grads.items() if k.startswith(projector)}
    named = {f"language.{k[4:]}": v for k, v in grads.items() if k.startswith("llm.")}
    named |= {f"head.{k}": v for k, v in head_state(head).items()}
    return named | {f"projector.{k}": v for k, v in projector_state(linear).items()}


@pytest.mark.parametrize("kind", ["mixed", "image_only", "video", "understanding_only"])
def test_losses_and_gradients(model, recorded, kind):
    record = recorded["train"][kind]
    model.zero_grad()
    terms = model.losses(batch_of(recorded, record))  # in evaluation mode: dropout was 0
    means = terms.means()
    if "image_loss" in record:
        close(means["visual"], record["image_loss"], 2e-6)
        close(means["text"], record["text_loss"], 2e-6)
    assert ("visual" in means) == ("image_loss" in record)
    close(terms.total(), record["loss"], 2e-6)
    terms.total().backward()
    own, expected = dict(model.named_parameters()), own_names(record["grads"])
    assert len(expected) == len(record["grads"])
    for name, grad in expected.items():
        close(own[name].grad, grad, 1e-6 + 3e-6 * float(grad.abs().max()))
    for name in set(own) - set(expected):
        assert own[name].grad is None or not own[name].grad.any(), name


def test_the_recorded_labels_are_the_codes_of_the_targets(model, recorded):
    record = recorded["train"]["video"]
    batch = batch_of(recorded, record)
    layout = model.sequence.lay_out(batch.documents)
    codes = model.tokenizer.encode(batch.images)[layout.span_images[layout.span_targets]]
    assert torch.equal(codes.flatten(0, 1).msort(), record["depth_codes"].flatten(0, 1).msort())
    close(layout.mask.sum(dim=1).msort(), record["prepared_mask"].sum(dim=1).msort(), 0)


# ---------------------------------------------------------------------- generation


@torch.no_grad()
def test_guided_drawing_given_the_recorded_codes(model, recorded):
    record = recorded["gen_image"]
    drawn, logits, hidden = iter(record["codes_flat"]), [], []

    def choose(guided, uniforms):
        logits.append(guided)
        return next(drawn)

    hook = model.head.hidden_projection.register_forward_pre_hook(lambda m, i: hidden.append(i[0]))
    try:
        codes = draw_codes(
            model,
            ["a snowy mountain"] * 2,
            num_positions=16,
            guidance=Guidance(3.0),
            choose=choose,
            seeds=[0, 0],
        )
    finally:
        hook.remove()
    assert torch.equal(codes.repeat(2, 1, 1), record["codes"])
    close(torch.stack(hidden, dim=1), record["llm_hidden"], 6e-6)
    close(torch.stack(logits), record["guided_logits"], 2e-5)
    close(model.tokenizer.embed(codes).repeat(2, 1, 1), record["features"], 1e-6)
    image = model.generate_images(["a snowy mountain"] * 2, given_codes=codes)
    close((image + 1) * 127.5, record["image"].clamp(0, 255), 2e-3)


def test_the_greedy_answer(model, recorded):
    record, pieces = recorded["answer"], []
    length = record["output_ids"].shape[1] - 1  # after the beginning mark
    for prompt in ("what is shown here", "<image>\nwhat is shown here"):
        answer = model.generate_text(
            record["pixels"], prompt, max_new_tokens=length, on_token=pieces.append
        )
        assert answer == record["text"]
    assert "".join(pieces) == 2 * answer
    both = model.answer(
        record["pixels"].expand(2, -1, -1, -1), ["no", "what is shown here"], max_new_tokens=length
    )
    assert both[1] == answer


@torch.no_grad()
def test_what_failed_in_the_published_code_works(model, recorded):
    """Chat in words, greedy and sampled; a batch in which nothing bears loss."""
    assert set(recorded["failures"]) == {"text_only_chat", "no_labels", "text_only_sampled"}
    row = model.sequence.answer_prompts([chat_segments("what is it", [], bare=True)])
    ids, said = row.ids, []
    for _ in range(6):
        logits = model.language(input_ids=ids).logits[:, -1]
        said.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor([[said[-1]]])], dim=1)
    found = model.generate_text(None, "what is it", max_new_tokens=6)
    assert found == decode_tokens(model.words, said).strip()
    sampled = {
        model.generate_text(None, "what is it", max_new_tokens=6, temperature=1.0, seed=seed)
        for seed in range(3)
    }
    assert len(sampled) > 1
    unlabelled = Document(document(recorded["samples"]["understand"]).segments, masked=True)
    terms = model.losses(MultimodalBatch(recorded["samples"]["understand"]["image"], [unlabelled]))
    assert terms.counts == {"text": 0.0, "visual": 0.0}
    assert terms.total() == 0
