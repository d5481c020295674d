"""Our scores equal those recorded from the published functions, on nasty and on random answers."""

import json
from functools import partial
from pathlib import Path

import pytest

from vilau.metrics.answer_text import normalize_answer, normalize_vqa
from vilau.metrics.answers import (
    GQA,
    MME,
    OKVQA,
    JudgedVideoQA,
    MMBench,
    PopeScores,
    ScienceQA,
    SeedBench,
    TextVQA,
    VizWiz,
    VQAv2,
)
from vilau.metrics.judged import read_verdict
from vilau.metrics.mmbench import match_option
from vilau.metrics.parsers import parse_letter, parse_mme, parse_science_qa, parse_yes_no

RECORDED = json.loads(
    (Path(__file__).parent / "data" / "published_scores.json").read_text(encoding="utf-8")
)
ANSWERS = [dict(zip(RECORDED["answer_fields"], row, strict=True)) for row in RECORDED["answers"]]
SOFT = [dict(zip(RECORDED["soft_fields"], row, strict=True)) for row in RECORDED["soft"]]


def outcomes(read) -> list[tuple[str, object]]:
    """Return every recorded answer with what ``read`` makes of it."""
    return [(row["answer"], read(row["answer"])) for row in ANSWERS]


def recorded(field: str) -> list[tuple[str, object]]:
    return [(row["answer"], row[field]) for row in ANSWERS]


def test_the_fixture_is_worth_comparing_with() -> None:
    assert len(ANSWERS) > 400
    for parser in ("pope", "mme", "scienceqa", "seed", "mmbench"):
        differ = sum(row[f"{parser}_lmms"] != row[f"{parser}_llava"] for row in ANSWERS)
        assert differ >= 8, f"the two styles of {parser} are hardly told apart"
    assert sum(row["evalai"] != row["vqav2"] for row in ANSWERS) >= 5
    assert {row["mme_lmms"] for row in ANSWERS} == {"yes", "no", "other"}


def test_normalisers() -> None:
    assert outcomes(normalize_answer) == recorded("evalai")
    assert outcomes(normalize_vqa) == recorded("vqav2")


@pytest.mark.parametrize("style", ["lmms", "llava"])
def test_parsers(style: str) -> None:
    assert outcomes(lambda text: parse_yes_no(text, style)) == recorded(f"pope_{style}")
    assert outcomes(lambda text: parse_mme(text, style)) == recorded(f"mme_{style}")
    sets = RECORDED["mmbench_options"]
    matched = outcomes(lambda text: [match_option(text, options, style) for options in sets])
    assert matched == recorded(f"mmbench_{style}")
    # A letter is only ever compared with those that the question offers.
    for benchmark, parse in (("seed", parse_letter), ("scienceqa", parse_science_qa)):
        letters = [
            (text, said if said in tuple("ABCDE") else "")
            for text, said in outcomes(partial(parse, style=style))
        ]
        assert letters == recorded(f"{benchmark}_{style}")


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        (VQAv2("lmms"), "vqav2_lmms"),
        (VQAv2("llava"), "vqav2_llava"),
        (TextVQA("lmms"), "textvqa"),
        (TextVQA("llava"), "textvqa"),
        (OKVQA("lmms"), "textvqa"),
        (VizWiz("lmms"), "textvqa"),
        (VizWiz("llava"), "vqav2_llava"),
    ],
)
def test_soft_accuracies(metric: VQAv2, field: str) -> None:
    for row in SOFT:
        score = metric.score(row["answer"], row["accepted"])
        assert score == pytest.approx(row[field], abs=1e-8), row
    metric.update([row["answer"] for row in SOFT], [row["accepted"] for row in SOFT])
    mean = sum(row[field] for row in SOFT) / len(SOFT)
    assert 0.2 < mean < 0.9
    assert float(metric.compute()["accuracy"]) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(("style", "place"), [("lmms", 2), ("llava", 3)])
def test_gqa(style: str, place: int) -> None:
    for row in RECORDED["gqa"]:
        metric = GQA(style)
        metric.update([row[0]], [row[1]])
        assert float(metric.compute()["accuracy"]) == row[place], row


@pytest.mark.parametrize("style", ["lmms", "llava"])
def test_pope_over_sets(style: str) -> None:
    for one in RECORDED["pope"]:
        metric = PopeScores(style)
        answers, truths = zip(*one["rows"], strict=True)
        metric.update(answers, truths)
        scores = metric.compute()
        for name, value in one[style].items():
            assert float(scores[name]) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("style", ["lmms", "llava"])
def test_mme_over_sets(style: str) -> None:
    perception, cognition = RECORDED["mme"]
    metric = MME(style)
    for part in (perception, cognition):
        metric.update(*zip(*part["rows"], strict=True))
    scores = metric.compute()
    assert float(scores["perception"]) == pytest.approx(perception[style], abs=1e-3)
    assert float(scores["cognition"]) == pytest.approx(cognition[style], abs=1e-3)


def test_mmbench_circular() -> None:
    named = {"color": "color", "other thing": "other_thing"}
    metric = MMBench("lmms", categories=list(named))
    rows = RECORDED["mmbench"]["rows"]
    metric.update_rows(
        [said for _, _, said, _, _ in rows],
        [
            {"index": index, "answer": truth, "category": category, **options}
            for index, truth, _, category, options in rows
        ],
    )
    scores = metric.compute()
    assert float(scores["accuracy"]) == pytest.approx(RECORDED["mmbench"]["accuracy"])
    for category, value in RECORDED["mmbench"]["by_category"].items():
        assert float(scores[f"{named[category]}_accuracy"]) == pytest.approx(value)
    assert scores["vanilla_accuracy"] > scores["accuracy"]


def test_replies_of_the_video_judge() -> None:
    readable = 0
    metric = JudgedVideoQA(lambda question, truth, answer: answer, "echo")
    for reply, found in RECORDED["video"]["replies"]:
        verdict = read_verdict(reply, "lmms")
        if found is None:
            assert verdict is None, reply
            continue
        readable += 1
        word = {True: "yes", False: "no"}.get(verdict.right, found[0])
        assert [word, verdict.score] == found, reply
        metric.update([reply], ["?"], ["!"])
    assert readable > 10
    scores = metric.compute()
    for name, value in RECORDED["video"]["readable"].items():
        assert float(scores[name]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "field", "update"),
    [
        (ScienceQA, "scienceqa", lambda metric, said: metric.update(said, ["B"] * len(said))),
        (
            SeedBench,
            "seed",
            lambda metric, said: metric.update(said, ["B"] * len(said), ["image"] * len(said)),
        ),
    ],
)
@pytest.mark.parametrize("style", ["lmms", "llava"])
def test_letters_over_the_whole_set(metric, field: str, update, style: str) -> None:
    one = metric(style)
    update(one, [row["answer"] for row in ANSWERS])
    right = sum(row[f"{field}_{style}"] == "B" for row in ANSWERS)
    assert right > 0
    score = one.compute().get("accuracy", one.compute().get("image"))
    assert float(score) == pytest.approx(right / len(ANSWERS), abs=1e-6)
