"""The numbers of two ranks are those of one process that saw everything."""

import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.callbacks.test_evaluation_callbacks import VQA, prompt_batches, questions
from tests.callbacks.test_tower_callbacks import labelled
from tests.callbacks.toys import Toy, image_batch, loader, trainer
from vilau.callbacks.codebook_usage import CodebookUsage
from vilau.callbacks.generation_agreement import GenerationAgreement
from vilau.callbacks.generation_fid import GenerationFID
from vilau.callbacks.generation_judge import GenerationJudge
from vilau.callbacks.image_grid import ImageGrid
from vilau.callbacks.question_answering import QuestionAnswering
from vilau.callbacks.reconstruction_fid import ReconstructionFID
from vilau.callbacks.retrieval import Retrieval
from vilau.callbacks.zero_shot import ZeroShot
from vilau.metrics.detector_card import drawn_images

COLORS = ("red", "green", "blue")


class Sevens:
    """A text is true of the images whose number begins as it does, whatever its colour."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor(
            [[i % 7 == int(text.split()[0]) for text in texts] for i in self.numbers]
        )


class Hues(nn.Module):
    """Mean colours of pictures and, for a text, whatever its letters give."""

    kind, name, preparation = "clip", "hues", "as they come"

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        return Toy.colors(images)

    def text_features(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float(ord(letter)) for letter in text[-3:]] for text in texts])


def measure(folder: Path, part: slice, **settings: object) -> dict[str, float]:
    """Validate and test on a part of the batches; return all metrics and hashes of reference sets."""
    images, scenes = drawn_images(40)
    validation = [image_batch(images[i : i + 10], scenes[i : i + 10]) for i in (0, 10, 20, 30)]
    labels = [labelled("red", "blue"), labelled("green", "blue")]
    pope = [
        questions("pope_random", ("a ?", ["yes"], "exist")),
        questions("pope_random", ("b ?", ["no"], "other")),
    ]
    only_first = questions("vqa_comp", ("how many ?", ["4"], "count"))
    only_second = questions(
        "mme",
        *[("yes ?", ["yes"], "any")] * 2,
        rows=[{"answer": truth, "category": "OCR", "question_id": 1} for truth in ("Yes", "No")],
    )
    sparse = [only_first, only_second]
    tests = [prompt_batches(40, 10)[part], pope[part], [VQA][part], sparse[part]]
    for start, batch in zip((0, 10, 20, 30), validation, strict=True):
        # Texts come again on other ranks, where they may be true of images that they did not come with.
        numbers = range(start, start + 10)
        batch.texts = [f"{i % 7} {COLORS[i % 3]}" for i in numbers]
        batch.truth = Sevens(numbers)
    callbacks = [
        ReconstructionFID(),
        ZeroShot(),
        CodebookUsage(),
        Retrieval(ks=(1, 5)),
        ImageGrid(num_images=2, prompts=["a star"]),
        QuestionAnswering(),
        GenerationJudge(),
        GenerationFID(),
        GenerationAgreement(Hues()),
    ]
    run = trainer(folder, *callbacks, use_distributed_sampler=False, **settings)
    batches = [*validation[part], *labels[part]]
    metrics = dict(run.validate(Toy(), loader(*batches), verbose=False)[0])
    metrics |= run.test(Toy(), loader(*[batch for some in tests for batch in some]), verbose=False)[
        0
    ]
    for callback in callbacks[:4]:
        for name, passport in callback.passports.items():
            metrics[f"{name} samples"] = passport.num_samples
            metrics[f"{name} reference"] = passport.reference
    return metrics


def one_rank(rank: int, port: int, folder: str) -> None:
    """Run rank ``rank`` of two and write what it measured."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
    }
    values = measure(Path(folder), slice(rank, None, 2), devices=2, strategy="ddp")
    Path(folder, f"rank{rank}.json").write_text(json.dumps(values))
    os._exit(0)  # gloo's threads may abort the interpreter's own way out


@pytest.mark.multi_rank
def test_two_ranks_measure_the_same_as_one(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=one_rank, args=(rank, port, str(tmp_path))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    alone = measure(tmp_path / "alone", slice(None))
    for process in ranks:
        process.join(600)
        process.kill()
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first.keys() == alone.keys()
    assert any("vqa_comp" in name for name in first)
    assert first["test/mme_OCR_score"] == 50.0
    assert 0 < first["val/retrieval_text_to_image_r5"] < 1
    assert first["test/clip_score"] > 0
    # Which real images stand in for drawings, and which others a prompt is judged by, depends on
    # the batches a rank sees; everything else does not.
    for name, value in alone.items():
        if "floor" in name or ("chance" in name and name.startswith("test/draw")):
            continue
        expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-4)
        assert first[name] == expected, name
    written = {path.name for path in (tmp_path / "predictions").iterdir()}
    assert written == {
        "vqa-rank0.jsonl",
        "vqa_comp-rank0.jsonl",
        "mme-rank1.jsonl",
        "pope_random-rank0.jsonl",
        "pope_random-rank1.jsonl",
    }
