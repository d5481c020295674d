"""What a user can get wrong is told in one sentence."""

from pathlib import Path

import pytest

from vilau.errors import ConfigError, DataError
from vilau.metrics.answers import (
    MME,
    AnswerMetric,
    MMBench,
    MMVet,
    OpenEnded,
    Pope,
    ScienceQA,
    SeedBench,
    TextVQA,
    VQAv2,
    answer_metric,
    parse_yes_no,
    read_predictions,
)

TEN = ["red"] * 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("gqa", "lmm"), "style is 'lmm', but GQA exact match is read in style lmms or llava; write that."),
        (("ok_vqa", "llava"), "style is 'llava', but OK-VQA soft accuracy is read in style lmms; write that."),
        (("textqva",), "There is no benchmark 'textqva'. Did you mean 'textvqa'?"),
        (("zzz",), "There is no benchmark 'zzz'. Write one of activitynetqa, gqa, "),
        (("mmvet",), "'mmvet' is scored by a judge model and none is given; give judge and judge_name, or"),
        (("msvd_qa",), "or ask for 'video_qa', which compares strings under a name of its own."),
    ],
)  # fmt: skip
def test_unknown_names_and_styles(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        answer_metric(*arguments)
    assert sentence in str(error.value)


def test_other_settings() -> None:
    with pytest.raises(ConfigError, match="style is 'LLaVA'"):
        parse_yes_no("yes", "LLaVA")
    with pytest.raises(ConfigError, match="match is 'sof'. Did you mean 'soft'"):
        answer_metric("video_qa", match="sof")
    with pytest.raises(ConfigError, match="judge_name is empty, but MM-Vet depends on its judge"):
        answer_metric("mmvet", judge=lambda question, truth, answer: "1.0")


@pytest.mark.parametrize(
    ("metric", "arguments", "sentence"),
    [
        (VQAv2(), ([], []), "VQAv2 soft accuracy was given an empty list of answers; give at least one"),
        (VQAv2(), (["red"], [TEN, TEN]), "was given 1 answers but 2 accepted; give one of each"),
        (VQAv2(), (["red"], [[]]), "has 0 annotators' answers; style lmms needs at least 4"),
        (TextVQA("llava"), (["red"], [TEN[:9]]), "has 9 annotators' answers; style llava needs 10 of them"),
        (ScienceQA(), (["A"], ["AB"]), "has the answer 'AB'; its answer must be an option's letter"),
        (ScienceQA(), (["A"], [-1]), "has the answer -1; its answer must be an option's letter"),
        (SeedBench(), (["A"], ["A"], ["vidoe"]), "data of type 'vidoe'. Did you mean 'video'?"),
        (Pope(), (["yes"], ["yes"], ["popula"]), "setting 'popula'. Did you mean 'popular'?"),
        (Pope(), (["yes"], ["maybe"], ["popular"]), "has the answer 'maybe'; its answer must be yes or no."),
        (MME(), (["yes"], ["Yes"], ["colour"], ["1.png"]), "category 'colour'. Did you mean 'color'?"),
        (MMBench(), (["A"], ["A"], [3], [{}]), "MMBench question 3 offers no options"),
        (MMBench(categories=["color"]), (["A"], ["A"], [3], [{"A": "x"}]), "1 answers but 0 categories"),
        (OpenEnded(), (["a"], ["?"], ["a"], ["rec,spatial"]), "tagged 'spatial'. Did you mean 'spat'?"),
    ],
)  # fmt: skip
def test_updates(metric: AnswerMetric, arguments: tuple[list, ...], sentence: str) -> None:
    with pytest.raises(DataError) as error:
        metric.update(*arguments)
    assert sentence in str(error.value)


def test_rows_lacking_a_column() -> None:
    with pytest.raises(DataError, match="has no 'data_type', only answer, question; give each the"):
        SeedBench().update_rows(["A"], [{"answer": "A", "question": "?"}])
    with pytest.raises(DataError, match="was given 1 answers but 0 rows"):
        SeedBench().update_rows(["A"], [])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_scores_that_do_not_add_up() -> None:
    with pytest.raises(DataError, match="MME .* has no answers to score; call update before"):
        MME().compute()
    odd = MME()
    odd.update(["yes"] * 3, ["yes"] * 3, ["color"] * 3, ["a", "a", "b"])
    with pytest.raises(
        DataError, match="category color has 1 images with 1 instead of 2 questions"
    ):
        odd.compute()
    twice, orphan = MMBench(), MMBench()
    twice.update(["A", "A"], ["A", "A"], [1, 1], [{"A": "x"}] * 2)
    with pytest.raises(DataError, match="was answered twice"):
        twice.compute()
    orphan.update(["A"], ["A"], [1_000_001], [{"A": "x"}])
    with pytest.raises(DataError, match="1 MMBench questions have rotations but not the unrotated"):
        orphan.compute()


def test_a_failed_update_leaves_nothing_behind() -> None:
    vet, pope, seed = MMVet(lambda question, truth, answer: "1.0", "judge"), Pope(), SeedBench()
    with pytest.raises(DataError):
        vet.update(["a", "b"], ["?", "?"], ["a", "b"], ["rec", "wrong"])
    with pytest.raises(DataError):
        pope.update(["yes", "no"], ["yes", "no"], ["random", "wrong"])
    with pytest.raises(DataError):
        seed.update(["A", "A"], ["A", "A"], ["image", "wrong"])
    assert int(vet.counts.sum()) == int(pope.tables.sum()) == int(seed.counts.sum()) == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"answer": "red"}\n{"answer": "bl', "line 2 is cut short; evaluate again"),
        (b'{"answer": "red"}\n{"answer: "x"}\n{"answer": "x"}\n', "line 2 is not JSON"),
        (b'{"answer": "caf\xc3', "line 1 is cut short"),
        (b'{"answer": "red"}\n\n["red"]\n', "line 3 holds a list; write an object with 'answer'."),
        (b'{"text": "red"}\n', "line 1 has no text under 'answer', only text; name the field"),
        (b'{"answer": 3}\n', "line 1 has no text under 'answer'"),
        (b"", "holds no predictions"),
        (b'{"answer": "red"}\n', "holds 1 predictions, but 3 questions were asked; it may have been cut"),
    ],
)  # fmt: skip
def test_broken_files_of_predictions(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "vqa.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_predictions(path, expected=3)
    assert str(path) in str(error.value)
    assert sentence in str(error.value)


def test_files_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "merge.jsonl"
    with pytest.raises(DataError, match=r"merge.jsonl cannot be read \(No such file"):
        read_predictions(path)
    # A last line that is whole but not ended by a line break is no loss.
    path.write_text('{"text": "a\\u2028b", "id": 1}\r\n{"text": ""}', encoding="utf-8")
    assert read_predictions(path, key="text", expected=2) == [
        {"text": "a\u2028b", "id": 1},
        {"text": ""},
    ]
