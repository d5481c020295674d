"""Single rules of the benchmarks that the recorded scores do not show."""

import pytest

from vilau.data.published.images import MME_CATEGORIES
from vilau.errors import ConfigError, DataError
from vilau.metrics.answers import (
    BENCHMARKS,
    JUDGED,
    MME,
    JudgedVideoQA,
    OpenEnded,
    Pope,
    PopeScores,
    SeedBench,
    VQAv2,
    answer_metric,
)
from vilau.metrics.judged import read_grade, read_verdict
from vilau.metrics.mme import MME_COGNITION, MME_PERCEPTION, WorldMME
from vilau.metrics.open_ended import element_share
from vilau.metrics.video_qa import match_verdict
from vilau.world.pairs import PAIR_CATEGORIES


def test_every_benchmark_says_in_its_passport_what_read_the_answers() -> None:
    for name in BENCHMARKS:
        passport = answer_metric(name).passport("set", 3, "no OCR tokens")
        assert passport.metric
        assert passport.features in ("parser lmms", "string match", "exact match")
        assert (passport.reference, passport.num_samples) == ("set", 3)
    assert answer_metric("pope", "llava").passport().features == "parser llava"
    for name in JUDGED:
        metric = answer_metric(name, judge=lambda question, truth, answer: "", judge_name="j-1")
        assert "judge j-1" in metric.passport().features
    # What no judge read never bears the name of what a judge reads.
    judged = {JUDGED[name].title for name in JUDGED}
    assert not judged & {BENCHMARKS[name].title for name in BENCHMARKS}


def test_rows_of_vqav2_may_hold_annotators_alike_in_everything() -> None:
    # lmms-eval drops all dictionaries equal to the one left out, so that without answer_id even
    # ten equal answers would score 0; we leave out one annotator.
    metric = VQAv2()
    metric.update_rows(["red"], [{"answers": [{"answer": "red"}] * 10}])
    assert float(metric.compute()["accuracy"]) == 1.0


def test_pope_means_need_all_three_settings() -> None:
    metric = Pope()
    metric.update(["yes", "no"], ["yes", "no"], ["random", "popular"])
    scores = metric.compute()
    assert "mean_f1" not in scores
    assert float(scores["random_f1"]) == 1.0
    metric.update(["no"], ["yes"], ["adversarial"])
    scores = metric.compute()
    assert float(scores["mean_f1"]) == pytest.approx(1 / 3)
    assert float(scores["f1"]) == pytest.approx(2 / 3)
    pooled = PopeScores()
    pooled.update(["yes", "no", "no"], ["yes", "no", "yes"])
    assert {name: scores[name] for name in pooled.compute()} == pooled.compute()


@pytest.mark.parametrize(
    ("said", "points"), [(("Yes", "No"), 200.0), (("Yes", "Yes"), 50.0), (("No", "Yes"), 0.0)]
)
def test_mme_points_of_one_pair(said: tuple[str, str], points: float) -> None:
    metric = MME(expected=["OCR"])
    metric.update_rows(list(said), mme_pair("OCR"))
    scores = metric.compute()
    assert float(scores["perception"]) == float(scores["OCR_score"]) == points
    assert "cognition" not in scores  # never asked is not 0 points


def mme_pair(category: str) -> list[dict[str, str]]:
    return [
        {"answer": truth, "category": category, "question_id": "1.png"} for truth in ("Yes", "No")
    ]


def test_a_part_of_mme_is_not_summed() -> None:
    metric = MME()
    for category in MME_PERCEPTION[:-1]:
        metric.update_rows(["Yes", "No"], mme_pair(category))
    wanted = (
        "perception lacks OCR and cognition lacks commonsense_reasoning, numerical_calculation, "
        "text_translation, code_reasoning: left out; ask these too"
    )
    with pytest.warns(UserWarning, match=wanted):
        scores = metric.compute()
    assert not {"perception", "cognition"} & set(scores)
    assert float(scores["scene_score"]) == 200.0
    assert metric.passport(details="so").details == "so"
    whole = MME()
    for category in MME_PERCEPTION + MME_COGNITION[:1]:
        whole.update_rows(["Yes", "No"], mme_pair(category))
    with pytest.warns(UserWarning, match="but cognition lacks numerical_calculation"):
        scores = whole.compute()
    assert float(scores["perception"]) == 2000.0
    assert whole.passport().details == "perception 10 of 10 categories, at most 2000"


def test_the_twin_of_mme_sums_what_its_level_has() -> None:
    metric = WorldMME()
    for category in PAIR_CATEGORIES:
        if category != "OCR":
            metric.update_rows(["Yes", "No"], mme_pair(category))
    scores = metric.compute()
    assert (float(scores["perception"]), float(scores["cognition"])) == (1800.0, 800.0)
    assert metric.passport("x", 4, "baseline: chance").details == (
        "baseline: chance; perception 9 of 10 categories, at most 1800; cognition 4 of 4 categories, at most 800"
    )
    told = WorldMME(expected=PAIR_CATEGORIES)
    told.update_rows(["Yes", "No"], mme_pair("count"))
    with pytest.warns(UserWarning, match="perception lacks existence, position"):
        assert "perception" not in told.compute()


def test_the_readers_folders_are_the_scores_categories() -> None:
    assert sorted(MME_CATEGORIES) == sorted(MME_PERCEPTION + MME_COGNITION)
    with pytest.raises(
        ConfigError, match="expected holds the category 'colour'. Did you mean 'color'"
    ):
        MME(expected=["colour"])


def test_seed_reports_only_what_was_asked() -> None:
    metric = SeedBench()
    metric.update_rows(["A", "b"], [{"answer": "A", "data_type": "image"}] * 2)
    assert {name: float(value) for name, value in metric.compute().items()} == {"image": 0.5}
    metric.update_rows(["C"], [{"answer": "C", "data_type": "video"}])
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"all": pytest.approx(2 / 3), "image": 0.5, "video": 1.0}


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.7", 0.7),
        (" 1.0 because", 1.0),
        ("0", 0.0),
        ("1.1", None),
        ("-0.1", None),
        ("nan", None),
        ("", None),
        ("good 0.5", None),
    ],
)
def test_grades(reply: str, grade: float | None) -> None:
    assert read_grade(reply) == grade


def test_styles_of_verdicts_and_what_a_judge_is_asked() -> None:
    chatty = "Sure: {'pred': 'yes', 'score': 5}"
    assert read_verdict(chatty, "lmms") == (True, 5)
    assert read_verdict(chatty, "llava") is None
    assert read_verdict("{'pred': 'No', 'score': 1}", "llava") == (False, 1)
    assert read_verdict("__import__('os')", "llava") is None  # read, never run
    asked = []

    def judge(*question: str) -> str:
        asked.append(question)
        return ["{'pred': 'yes', 'score': 4}", ""][len(asked) - 1]

    metric = JudgedVideoQA(judge, "j")
    rows = [{"question": "where ?", "answer": "left"}, {"question": "who ?", "answer": "me"}]
    metric.update_rows(["to the left", "you"], rows)
    assert asked == [("where ?", "left", "to the left"), ("who ?", "me", "you")]
    scores = {name: float(value) for name, value in metric.compute().items()}
    assert scores == {"accuracy": 0.5, "score": 2.0, "unreadable": 0.5}


@pytest.mark.parametrize(
    ("truth", "answer", "share"),
    [
        ("red", "It is a Red ball.", 1.0),
        ("two", "I see 2 of them", 1.0),
        ("no", "nothing", 0.0),
        ("red <AND> star", "a red ring", 0.5),
        ("red<AND>blue<AND>green", "red and blue", 0.7),
        ("couch <OR> sofa <AND> dog", "a dog on a sofa", 1.0),
        ("top left", "left, at the top", 0.0),
        ("A", "The letter is A.", 1.0),  # nothing is left of the truth once normalised
        ("A", "The letter is B.", 0.0),
    ],
)
def test_required_elements(truth: str, answer: str, share: float) -> None:
    assert element_share(truth, answer) == share
    metric = OpenEnded()
    metric.update_rows([answer], [{"question": "?", "answer": truth, "capability": "rec,spat"}])
    assert {name: float(value) for name, value in metric.compute().items()} == pytest.approx(
        {"score": share, "rec": share, "spat": share, "unreadable": 0.0}
    )


@pytest.mark.parametrize(
    ("answer", "exact", "soft"),
    [
        ("Left.", (True, 5), (True, 5)),
        ("it moves left", (False, 0), (True, 4)),
        ("left or right", (False, 0), (False, 0)),
        ("right", (False, 2), (False, 2)),
        ("leftover", (False, 0), (False, 0)),
    ],
)
def test_string_verdicts(answer: str, exact: tuple, soft: tuple) -> None:
    kinds = ["left", "right", "up", "down"]
    assert match_verdict("left", answer, "exact", kinds) == exact
    assert match_verdict("left", answer, "soft", kinds) == soft


def test_video_questions_by_family():
    metric = answer_metric("world_msrvtt_qa")
    rows = [
        {"answer": "left", "type": "direction", "alternatives": ["left", "right"]},
        {"answer": "right", "type": "direction", "alternatives": ["left", "right"]},
        {"answer": "slow", "type": "speed"},
    ]
    metric.update_rows(["left", "left", "slow"], rows)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert found["direction_accuracy"] == 0.5
    assert found["speed_accuracy"] == 1.0
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["score"] == pytest.approx((5 + 2 + 5) / 3)
    assert "temporal_accuracy" not in found
    soft = answer_metric("world_msrvtt_qa", match="soft")
    soft.update_rows(["left or right", "moving left"], [rows[0], rows[0]])  # both, and one of them
    found = {name: float(value) for name, value in soft.compute().items()}
    assert found["accuracy"] == found["direction_accuracy"] == 0.5
    with pytest.raises(DataError, match="of type 'smell'"):
        metric.update_rows(["x"], [{"answer": "x", "type": "smell"}])
