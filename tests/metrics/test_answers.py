import pytest
from torch import tensor

from vilau.errors import DataError
from vilau.metrics.answer_text import CONTRACTIONS, normalize_answer
from vilau.metrics.answers import (
    GroupedMean,
    PopeScores,
    best_vqa_accuracy,
    exact_match,
    parse_yes_no,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("said", "normal"),
    [
        # Recorded outputs of lmms-eval's processor.
        ("Yes.", "yes"),
        ("two", "2"),
        ("None", "0"),
        ("A red ball", "red ball"),
        ("10,000", "10000"),
        ("3.5", "3.5"),
        ("top-left", "top left"),
        ("U.S.A.", "usa"),
        # What its rules say of other cases.
        ("  The cat\n", "cat"),
        ("what's that?", "what 's that"),
        ("left - right", "left right"),
        ("red/blue", "red blue"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("", ""),
    ],
)
def test_normaliser_golden_strings(said: str, normal: str) -> None:
    assert normalize_answer(said) == normal


def test_contractions_leave_words_of_their_own_alone() -> None:
    for word in ("ill", "well", "hell", "shell", "were", "its", "id", "wed", "shed", "im", "lets"):
        assert word not in CONTRACTIONS
    assert CONTRACTIONS["youd've"] == CONTRACTIONS["you'dve"] == "you'd've"
    assert CONTRACTIONS["cant"] == "can't"


@pytest.mark.parametrize(
    ("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (8, 1), (10, 1)]
)
def test_vqa_soft_accuracy(matches: int, score: float) -> None:
    accepted = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("Red.", accepted) == pytest.approx(score)


def test_vqa_with_few_accepted_answers_and_the_ceiling() -> None:
    assert vqa_accuracy("two", ["2"]) == 1.0
    assert vqa_accuracy("couch", ["sofa", "couch"]) == 1.0
    assert vqa_accuracy("chair", ["sofa", "couch"]) == 0.0
    assert best_vqa_accuracy(["red"] * 3 + ["blue"] * 2 + [str(i) for i in range(20, 25)]) == 0.9
    assert best_vqa_accuracy(["7"]) == 1.0


def test_exact_match_has_no_number_map() -> None:
    assert exact_match(" Left. ", ["left"]) == 1.0
    assert exact_match("two", ["2"]) == 0.0


@pytest.mark.parametrize(
    ("answer", "lmms", "llava"),
    [
        ("Yes", "yes", "yes"),
        (" yes\n", "yes", "yes"),
        ("Yes.", "other", "yes"),
        ("yes, there is", "other", "yes"),
        ("no", "no", "no"),
        ("No, there is not", "other", "no"),
        ("There is no star. Yes.", "other", "no"),
        ("Yes. There is no other", "other", "yes"),
        ("NO", "no", "yes"),
        ("a red star", "other", "yes"),
        ("nothing", "other", "yes"),
    ],
)
def test_the_two_pope_parsers(answer: str, lmms: str, llava: str) -> None:
    assert parse_yes_no(answer, "lmms") == lmms
    assert parse_yes_no(answer, "llava") == llava


def test_pope_counts_like_lmms_eval_but_the_ratio_is_of_predictions() -> None:
    answers = ["yes", "yes", "no", "Yes.", "yes", "no", "no", "maybe"]
    truths = ["yes", "yes", "yes", "yes", "no", "no", "no", "no"]
    pope = PopeScores("lmms")
    pope.update(answers[:3], truths[:3])
    pope.update(answers[3:], truths[3:])
    scores = pope.compute()
    # true yes 2, false yes 1, false no 1; two answers are neither.
    assert scores["accuracy"] == pytest.approx(4 / 8)
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["yes_ratio"] == pytest.approx(3 / 8)
    llava = PopeScores("llava")
    llava.update(answers, truths)
    assert llava.compute()["accuracy"] == pytest.approx(5 / 8)
    assert llava.compute()["yes_ratio"] == pytest.approx(5 / 8)


def test_pope_without_any_yes_is_zero_not_nan() -> None:
    pope = PopeScores()
    pope.update(["no", "no"], ["yes", "no"])
    assert pope.compute()["f1"] == 0.0
    assert pope.compute()["accuracy"] == 0.5


def test_pope_refuses_other_truths() -> None:
    with pytest.raises(DataError, match="has the answer 'red'; its answer must be yes or no"):
        PopeScores().update(["yes"], ["red"])


def test_grouped_mean() -> None:
    means = GroupedMean()
    means.update({"b": [1.0, 0.0], "a": [0.25]})
    means.update({"b": [1.0], "empty": []})
    assert means.compute() == {"a": (0.25, 1), "b": (pytest.approx(2 / 3), 3)}
    assert list(means.compute()) == ["a", "b"]
    means.reset()
    assert means.compute() == {}


def test_pope_state_adds_over_ranks() -> None:
    first, second = PopeScores(), PopeScores()
    first.update(["yes"], ["yes"])
    second.update(["no"], ["yes"])
    first.table += second.table  # what the sum over ranks does
    assert first.table.tolist() == tensor([[0, 0, 0], [1, 1, 0]]).tolist()
    assert first.compute()["recall"] == 0.5
