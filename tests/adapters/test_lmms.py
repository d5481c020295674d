"""The model of lmms-eval: against a stand-in of its interface always, against the package where it is installed."""

from __future__ import annotations

import abc
import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.models import tiny
from vilau.adapters import lmms
from vilau.adapters.task_folder import SCORED, write_tasks
from vilau.data.twins.sets import TwinSet, twin_set
from vilau.data.world_data import WorldSpec
from vilau.errors import ConfigError, DataError
from vilau.metrics.answers import answer_metric

SIZE = 32


@dataclass
class Instance:
    """What lmms-eval hands over: ``args`` is all that its models read."""

    args: tuple[Any, ...]


class Base(abc.ABC):
    """lmms-eval's base class as far as its guide for models documents it."""

    is_simple: bool = True

    def __init__(self) -> None:
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package ``lmms_eval`` that holds the base class and the manifest."""

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None
        chat_class_path: str | None = None
        aliases: tuple[str, ...] = ()

    for name, content in (
        ("lmms_eval", {}), ("lmms_eval.api", {}), ("lmms_eval.api.model", {"lmms": Base}),
        ("lmms_eval.models", {}), ("lmms_eval.models.registry_v2", {"ModelManifest": ModelManifest}),
    ):  # fmt: skip
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    lmms.model_class.cache_clear()
    yield
    lmms.model_class.cache_clear()


class Parrot:
    """Says which pictures it saw and what it was asked."""

    reading_size = SIZE
    prompt = argparse.Namespace(form="plain")

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, str, int]] = []

    def parameters(self) -> Iterator[Tensor]:
        yield torch.zeros(1)

    def answer(
        self, images: Tensor | None, questions: Sequence[str], *, max_new_tokens: int
    ) -> list[str]:
        if images is None:
            return [f"words: {text}" for text in questions]
        assert len(images) == len(questions)
        self.seen += [
            (image, text, max_new_tokens) for image, text in zip(images, questions, strict=True)
        ]
        return [f" {text}\n\nmore" for text in questions]

    def generate_text(self, images: Tensor | None, prompt: str, *, max_new_tokens: int) -> str:
        self.seen.append((torch.empty(0) if images is None else images, prompt, max_new_tokens))
        return f"clip: {prompt}"


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((SIZE, SIZE, 3), value, dtype=np.uint8))


DOCS = [{"q": f"what is {n} ?", "image": picture(50 * n)} for n in range(4)]
SETTINGS = {"max_new_tokens": 16, "until": ["\n\n"], "do_sample": False}


def request(form: str, number: int, settings: dict[str, Any] = SETTINGS) -> Instance:
    if form == "simple":
        return Instance(
            (DOCS[number]["q"], settings, lambda doc: [doc["image"]], number, "t", "test")
        )

    def messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
        image = {"type": "image", "url": doc["image"]}
        return [{"role": "user", "content": [image, {"type": "text", "text": doc["q"]}]}]

    return Instance(("", messages, settings, number, "t", "test"))


def started(form: str, **settings: Any) -> tuple[Any, Parrot]:
    parrot = Parrot()
    model = getattr(lmms, form.capitalize())(pretrained=parrot, **settings)
    model.task_dict = {"t": {"test": DOCS}}
    return model, parrot


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("form", ["simple", "chat"])
def test_requests_are_answered_in_order_in_batches(form: str) -> None:
    model, parrot = started(form, batch_size=3)
    assert isinstance(model, Base)
    assert model.is_simple == (form == "simple")
    answers = model.generate_until([request(form, number) for number in (2, 0, 3, 1)])
    assert answers == [
        f"what is {number} ?" for number in (2, 0, 3, 1)
    ]  # cut at the task's own end
    assert [text for _, text, _ in parrot.seen] == answers
    for (image, _, limit), number in zip(parrot.seen, (2, 0, 3, 1), strict=True):
        assert image.mean() == pytest.approx(50 * number / 127.5 - 1, abs=1e-5)
        assert limit == 16
    # A batch over two tasks keeps each task's limit.
    model.generate_until([request(form, 0), request(form, 1, {})])
    assert [limit for *_, limit in parrot.seen[-2:]] == [16, lmms.MAX_NEW_TOKENS]


@pytest.mark.usefixtures("stand_in")
def test_several_pictures_are_the_frames_of_a_clip_and_none_is_a_question_alone() -> None:
    model, parrot = started("simple")
    frames = [picture(10), picture(20), picture(30)]
    several = Instance(("which way ?", {}, lambda doc: frames, 0, "t", "test"))
    none = Instance(("what ?", {}, lambda doc: None, 0, "t", "test"))
    answers = model.generate_until([several, none])
    assert answers[0] == "clip: <vi_start><image><image><image><vi_end>\nwhich way ?"
    assert answers[1] == "words: what ?"
    assert parrot.seen[0][0].shape == (3, 3, SIZE, SIZE)
    parrot.prompt = argparse.Namespace(form="published")
    assert model.generate_until([several]) == ["clip: <image>\n<image>\n<image>\nwhich way ?"]


def chat(*content: Any) -> Instance:
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "url": part}
        for part in content
    ]
    return Instance(("", lambda doc: [{"role": "user", "content": parts}], {}, 0, "t", "test"))


@pytest.mark.usefixtures("stand_in")
def test_pictures_between_words_of_a_chat_stand_where_it_has_them(tmp_path: Path) -> None:
    model, parrot = started("chat", num_frames=4)
    first, second = picture(10), picture(20)
    (answer,) = model.generate_until([chat("one:", first, "another:", second, "do they differ ?")])
    assert answer == "clip: one:\n<image>\nanother:\n<image>\ndo they differ ?"
    assert parrot.seen[0][0].shape == (2, 3, SIZE, SIZE)
    assert parrot.seen[0][0][0].mean() < parrot.seen[0][0][1].mean()
    # Frames before one text are a clip, as in the simple form: lmms-eval's own chat of SEED-Bench's videos.
    (answer,) = model.generate_until([chat(first, second, "which way ?")])
    assert answer == "clip: <vi_start><image><image><vi_end>\nwhich way ?"
    # Words with marks of their own stay as they are.
    (answer,) = model.generate_until([chat(first, second, "is <image> as <image> ?")])
    assert answer == "clip: is <image> as <image> ?"
    # A video among pictures keeps its marks.
    path = tmp_path / "clip.gif"
    first.save(path, save_all=True, append_images=[picture(40 * n) for n in range(1, 6)])
    mixed = chat("which frame is this ?", first)
    mixed.args[1](None)[0]["content"].append({"type": "video", "url": str(path)})
    (answer,) = model.generate_until([mixed])
    clip = "<vi_start><image><image><image><image><vi_end>"
    assert answer == f"clip: which frame is this ?\n<image>\n{clip}"


@pytest.mark.usefixtures("stand_in")
def test_videos_of_a_chat_are_read_as_frames(tmp_path: Path) -> None:
    model, parrot = started("chat", num_frames=4)
    path = tmp_path / "clip.gif"
    picture(0).save(
        path, save_all=True, append_images=[picture(40 * n) for n in range(1, 6)], duration=100
    )
    content = [{"type": "video", "url": str(path)}, {"type": "text", "text": "what ?"}]
    model.generate_until(
        [Instance(("", lambda doc: [{"role": "user", "content": content}], {}, 0, "t", "test"))]
    )
    assert parrot.seen[0][0].shape == (4, 3, SIZE, SIZE)


@pytest.mark.usefixtures("stand_in")
def test_manifest_names_both_classes() -> None:
    (manifest,) = lmms.manifests()
    assert manifest.model_id == "vilau"
    assert manifest.simple_class_path == "vilau.adapters.lmms.Simple"
    assert manifest.chat_class_path == "vilau.adapters.lmms.Chat"


@pytest.mark.usefixtures("stand_in")
def test_what_is_not_offered_and_what_makes_no_sense() -> None:
    model, _ = started("simple")
    with pytest.raises(NotImplementedError, match="lm-evaluation-harness"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="one question at a time"):
        model.generate_until_multi_round([])
    with pytest.raises(ConfigError, match="sampled answers"):
        model.generate_until([request("simple", 0, {"do_sample": True, "temperature": 0.7})])
    with pytest.raises(ConfigError, match="names no pretrained"):
        lmms.Simple()
    with pytest.raises(ConfigError, match="dtype=half; write one of auto, float32"):
        lmms.Simple(pretrained=Parrot(), dtype="half")
    with pytest.raises(ConfigError, match="batch_size is auto"):
        lmms.Simple(pretrained=Parrot(), batch_size="auto")
    chat, _ = started("chat")
    two = Instance(("", lambda doc: [{"content": []}] * 2, {}, 0, "t", "test"))
    with pytest.raises(DataError, match="a chat of 2 messages"):
        chat.generate_until([two])
    odd = Instance(
        ("", lambda doc: [{"content": [{"type": "audio", "url": ""}]}], {}, 0, "t", "test")
    )
    with pytest.raises(DataError, match="a message holds audio"):
        chat.generate_until([odd])


def test_without_the_package_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)
    lmms.model_class.cache_clear()
    with pytest.raises(ConfigError, match="needs the package lmms-eval"):
        lmms.Simple  # noqa: B018 - asking for it is the test
    with pytest.raises(AttributeError):
        lmms.Complicated  # noqa: B018


# ------------------------------------------------------------------ the tasks


@pytest.fixture(scope="module")
def twins() -> list[TwinSet]:
    world = WorldSpec(num_train=60)
    return [twin_set(name, world, 26, image_size=SIZE * 2, num_prior=20) for name in SCORED]


def test_the_folder_holds_rows_pictures_and_yaml(twins: list[TwinSet], tmp_path: Path) -> None:
    folder = tmp_path / 'ta"sks'
    assert write_tasks(folder, twins) == list(SCORED)
    assert (folder / "utils.py").read_text().count("from lmms_eval.tasks.") == 5
    for twin in twins:
        rows = [
            json.loads(line)
            for line in (folder / twin.benchmark / "questions.jsonl").read_text().splitlines()
        ]
        assert len(rows) == len(twin)
        several = twin.benchmark == "world_seedbench"
        assert all(isinstance(row["image"], list) is several for row in rows)
        files = rows[0]["image"] if several else [rows[0]["image"]]
        shown = np.stack([np.asarray(Image.open(file)) for file in files])
        assert (shown == twin.pictures(0)).all()
        assert {key: value for key, value in rows[0].items() if key != "image"} == twin.asked[0].row
        text = (folder / f"{twin.benchmark}.yaml").read_text()
        assert json.dumps(str(folder / twin.benchmark / "questions.jsonl")) in text
    with pytest.raises(DataError, match="already exists"):
        write_tasks(folder, twins)
    other = twin_set("world_scienceqa", WorldSpec(num_train=10), 2, image_size=64, num_prior=2)
    with pytest.raises(ConfigError, match="'world_scienceqa' is no task of lmms-eval"):
        write_tasks(tmp_path / "other", [other])
    assert not (tmp_path / "other").exists()


class Guesser(Parrot):
    """Right, wrong, chatty and odd answers, decided by what is asked."""

    def __init__(self, twins: Sequence[TwinSet]) -> None:
        super().__init__()
        self.said: dict[str, str] = {}
        manners = ("{}", "{}.", "{}, I think", "no idea", "YES", "b", "The {}", "two")
        for twin in twins:
            for number, (asked, (best,)) in enumerate(
                zip(twin.asked, twin.baselines["ceiling"], strict=True)
            ):
                self.said.setdefault(asked.prompt, manners[number % 11 % len(manners)].format(best))

    def answer(self, images: Tensor, questions: Sequence[str], *, max_new_tokens: int) -> list[str]:
        return [self.said[question] for question in questions]

    def generate_text(self, images: Tensor | None, prompt: str, *, max_new_tokens: int) -> str:
        return self.said[prompt.partition("\n")[2]]


SAME = {
    "world_pope": {
        "pope_accuracy": "accuracy", "pope_precision": "precision", "pope_recall": "recall",
        "pope_f1_score": "f1",
    },
    "world_mme": {"mme_perception_score": "perception", "mme_cognition_score": "cognition"},
    "world_gqa": {"exact_match": "accuracy"},
    "world_vqav2": {"exact_match": "accuracy"},
    "world_seedbench": {"seed_image": "image", "seed_video": "video", "seed_all": "all"},
}  # fmt: skip


@pytest.mark.parametrize("form", ["chat", "simple"])
def test_lmms_eval_itself_gives_our_figures(
    form: str, twins: list[TwinSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    evaluator = pytest.importorskip("lmms_eval.evaluator", reason="lmms-eval is not installed")
    tasks = pytest.importorskip("lmms_eval.tasks", reason="lmms-eval is not installed")
    names = write_tasks(tmp_path / "tasks", twins)
    guesser = Guesser(twins)
    model = lmms.model_class(form)(pretrained=guesser, batch_size=4)
    found = evaluator.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=tasks.TaskManager(
            "ERROR", include_path=str(tmp_path / "tasks"), include_defaults=False
        ),
        cli_args=argparse.Namespace(process_with_media=False),
    )["results"]
    for twin in twins:
        metric = answer_metric(twin.benchmark)
        metric.update_rows(
            [guesser.said[one.prompt] for one in twin.asked], [one.row for one in twin.asked]
        )
        ours = metric.compute()
        for theirs, name in SAME[twin.benchmark].items():
            value = float(found[twin.benchmark][f"{theirs},none"])
            assert float(ours[name]) == pytest.approx(value, abs=1e-5), (twin.benchmark, theirs)
            assert 0.0 < value < 2000.0


def test_a_real_model_answers_through_the_adapter_as_by_itself(
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue("stand_in")
    made = tiny.vila_u()
    model = lmms.Simple(pretrained=made, batch_size=2)
    small = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in tiny.images(3)]
    model.task_dict = {"t": {"test": small}}
    asked = [
        Instance(("what ?", {"max_new_tokens": 5}, lambda doc: [doc], n, "t", "test"))
        for n in range(3)
    ]
    direct = made.answer(tiny.images(3) / 127.5 - 1, ["what ?"] * 3, max_new_tokens=5)
    assert model.generate_until(asked) == [text.strip() for text in direct]
