"""Random answers for every benchmark, and its score by a plain loop written from the protocol's words."""

import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from vilau.metrics.answers import AnswerMetric, answer_metric

Columns = dict[str, list[Any]]

YES_NO_SAID = ["yes", "no", "Yes", "No.", "Yes.", "y", "not sure", "There is no", "red", ""]
LETTERS_SAID = ["A", "B", "C", "b", "B.", "A. red", "The answer is C.", "D red", "red", ""]


def echo_grade(question: str, truth: str, answer: str) -> str:
    """A judge of open answers that finds the grade in the answer."""
    return answer


@dataclass(frozen=True)
class Case:
    """A metric, random arguments of its ``update``, and the plain loop."""

    make: Callable[[], AnswerMetric]
    draw: Callable[[random.Random], Columns]
    plain: Callable[[Columns], dict[str, float]]


def soft_accuracy_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        words = ["red", "blue", "2", "yes", "left"]
        said = [rng.choice(words) for _ in range(60)]
        accepted = [
            [rng.choice([word, word, *words]) for _ in range(rng.choice([10, 10, 5]))]
            for word in said
        ]
        return {"answers": said, "accepted": accepted}

    def plain(columns: Columns) -> dict[str, float]:
        scores = []
        for said, accepted in zip(columns["answers"], columns["accepted"], strict=True):
            subsets = [accepted[:i] + accepted[i + 1 :] for i in range(len(accepted))]
            votes = [min(1.0, subset.count(said) / 3) for subset in subsets]
            scores.append(sum(votes) / len(votes))
        return {"accuracy": sum(scores) / len(scores)}

    return Case(lambda: answer_metric("vqav2"), draw, plain)


def pope_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        return {
            "answers": [rng.choice(YES_NO_SAID) for _ in range(90)],
            "truths": [rng.choice(["yes", "no"]) for _ in range(90)],
            "settings": [rng.choice(["random", "popular", "adversarial"]) for _ in range(90)],
        }

    def of(rows: list[tuple[str, str, str]]) -> dict[str, float]:
        # LLaVA's reading of YES_NO_SAID: everything is yes but these.
        read = ["no" if said in ("no", "No.", "not sure", "There is no") else "yes" for said, _, _ in rows]  # fmt: skip
        right = [word == truth for word, (_, truth, _) in zip(read, rows, strict=True)]
        hits = sum(r and word == "yes" for r, word in zip(right, read, strict=True))
        precision = hits / read.count("yes")
        recall = hits / sum(truth == "yes" for _, truth, _ in rows)
        return {
            "accuracy": sum(right) / len(rows),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
            "yes_ratio": read.count("yes") / len(rows),
        }

    def plain(columns: Columns) -> dict[str, float]:
        rows = list(zip(*columns.values(), strict=True))
        found = of(rows)
        settings = ["random", "popular", "adversarial"]
        parts = [of([row for row in rows if row[2] == setting]) for setting in settings]
        for setting, part in zip(settings, parts, strict=True):
            found |= {f"{setting}_{name}": value for name, value in part.items()}
        means = {name: sum(part[name] for part in parts) / 3 for name in parts[0]}
        return found | {f"mean_{name}": value for name, value in means.items()}

    return Case(lambda: answer_metric("pope", "llava"), draw, plain)


def mme_case() -> Case:
    perception, cognition = ("count", "color", "OCR"), ("sum",)

    def draw(rng: random.Random) -> Columns:
        rows = [
            (rng.choice([truth.lower(), *YES_NO_SAID]), truth, category, f"{image}.png")
            for category in (*perception, *cognition)
            for image in range(8)
            for truth in ("Yes", "No")
        ]
        rng.shuffle(rows)
        names = ("answers", "truths", "categories", "question_ids")
        return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    def plain(columns: Columns) -> dict[str, float]:
        images: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for said, truth, category, image in zip(*columns.values(), strict=True):
            word = said.lower().replace(".", "")
            word = {"y": "yes", "not sure": "no"}.get(word, word)
            images[category][image].append(word == truth.lower())
        scores = {"perception": 0.0, "cognition": 0.0}
        for category, pairs in images.items():
            accuracy = sum(sum(pair) / 2 for pair in pairs.values()) / len(pairs)
            plus = sum(all(pair) for pair in pairs.values()) / len(pairs)
            scores[f"{category}_accuracy"], scores[f"{category}_accuracy_plus"] = accuracy, plus
            scores[f"{category}_score"] = 100 * (accuracy + plus)
            side = "perception" if category in perception else "cognition"
            scores[side] += 100 * (accuracy + plus)
        return scores

    settings = {"perception": perception, "cognition": cognition}
    return Case(lambda: answer_metric("mme", **settings), draw, plain)


def seed_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        return {
            "answers": [rng.choice(LETTERS_SAID) for _ in range(60)],
            "truths": [rng.choice("ABCD") for _ in range(60)],
            "data_types": [rng.choice(["image", "image", "video"]) for _ in range(60)],
        }

    def plain(columns: Columns) -> dict[str, float]:
        rights = defaultdict(list)
        for said, truth, kind in zip(*columns.values(), strict=True):
            right = said[:1].upper() == truth
            rights["all"].append(right)
            rights[kind].append(right)
        return {kind: sum(found) / len(found) for kind, found in rights.items()}

    return Case(lambda: answer_metric("seedbench"), draw, plain)


def mmbench_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        columns: Columns = {name: [] for name in ("answers", "truths", "indices", "options")}
        for index, turn in itertools.product(range(25), range(4)):
            texts = ["red", "blue", "green", "yellow"]
            texts = texts[turn:] + texts[:turn]
            truth = "ABCD"[texts.index("red")]
            columns["answers"].append(rng.choice([truth] * 9 + ["it is red", "blue", "none"]))
            columns["truths"].append(truth)
            columns["indices"].append(index + turn * 1_000_000)
            columns["options"].append(dict(zip("ABCD", texts, strict=True)))
        return columns

    def plain(columns: Columns) -> dict[str, float]:
        turns = defaultdict(dict)
        for said, truth, index, _ in zip(*columns.values(), strict=True):
            turns[index % 1_000_000][index // 1_000_000] = said in (truth, "it is red")
        hits = [all(found.values()) for found in turns.values()]
        first = [found[0] for found in turns.values()]
        return {
            "accuracy": sum(hits) / len(hits),
            "vanilla_accuracy": sum(first) / len(first),
        }

    return Case(lambda: answer_metric("mmbench"), draw, plain)


def mmvet_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        tags = ["rec", "rec,ocr", "know, math", ""]
        return {
            "answers": [rng.choice(["0.0", "0.3", "1.0 good", "1.5", "well"]) for _ in range(40)],
            "questions": ["what ?"] * 40,
            "truths": ["a <AND> b"] * 40,
            "capabilities": [rng.choice(tags) for _ in range(40)],
        }

    def plain(columns: Columns) -> dict[str, float]:
        grades = {"0.3": 0.3, "1.0 good": 1.0}
        groups = defaultdict(list)
        for said, _, _, tags in zip(*columns.values(), strict=True):
            for name in ["score", *(tag.strip() for tag in tags.split(",") if tag)]:
                groups[name].append(grades.get(said, 0.0))
        means = {name: sum(found) / len(found) for name, found in groups.items()}
        lost = sum(said in ("1.5", "well") for said in columns["answers"])
        return means | {"unreadable": lost / len(columns["answers"])}

    make = partial(answer_metric, "mmvet", judge=echo_grade, judge_name="echo")
    return Case(make, draw, plain)


def video_case() -> Case:
    def draw(rng: random.Random) -> Columns:
        return {
            "answers": [rng.choice(["left", "Left.", "it moves left", "right", "?"]) for _ in range(40)],
            "truths": ["left"] * 40,
            "alternatives": [["left", "right"]] * 40,
        }  # fmt: skip

    def plain(columns: Columns) -> dict[str, float]:
        scores = {"left": 5, "Left.": 5, "it moves left": 4, "right": 2, "?": 0}
        found = [scores[said] for said in columns["answers"]]
        return {
            "accuracy": sum(score >= 4 for score in found) / len(found),
            "score": sum(found) / len(found),
            "unreadable": 0.0,
        }

    return Case(lambda: answer_metric("video_qa", match="soft"), draw, plain)


CASES: dict[str, Case] = {
    "vqav2": soft_accuracy_case(),
    "pope": pope_case(),
    "mme": mme_case(),
    "seedbench": seed_case(),
    "mmbench": mmbench_case(),
    "mmvet": mmvet_case(),
    "video_qa": video_case(),
}


def take(columns: Columns, places: list[int]) -> Columns:
    """Return some questions of all columns."""
    return {name: [values[i] for i in places] for name, values in columns.items()}


def scores(metric: AnswerMetric) -> dict[str, float]:
    """Return what a metric computes as numbers."""
    return {name: float(value) for name, value in metric.compute().items()}
