"""Published benchmarks in the question-answering callback."""

import pytest

from tests.callbacks.test_evaluation_callbacks import questions
from tests.callbacks.toys import Toy, loader, trainer
from vilau.callbacks.question_answering import QuestionAnswering
from vilau.errors import ConfigError


def asked(benchmark: str, *rows: dict):
    """Return a batch of questions with published columns."""
    return questions(
        benchmark,
        *((f"{number} ?", [str(row["answer"])], "any") for number, row in enumerate(rows)),
        rows=list(rows),
    )


def test_each_is_scored_by_its_own_rules(tmp_path) -> None:
    pair = [
        {"answer": truth, "category": "color", "question_id": "7.png"} for truth in ("Yes", "No")
    ]
    batches = [
        asked("mme", pair[0]),
        asked("seedbench", {"answer": "A", "data_type": "image"}),
        asked("mme", pair[1]),
        asked("gqa", {"answer": "a. red"}),
        *(
            questions(f"pope_{name}", ("a ?", ["yes"], "exist"), ("b ?", ["no"], "exist"))
            for name in ("random", "popular", "adversarial")
        ),
    ]
    callback = QuestionAnswering(num_samples=0, style="lmms")
    with pytest.warns(UserWarning, match="MME's sums are of all categories, but perception lacks"):
        (values,) = trainer(tmp_path, callback).test(Toy("A. red"), loader(*batches), verbose=False)
    assert "test/mme_perception" not in values
    assert values["test/mme_color_accuracy"] == 0.0
    assert values["test/seedbench_image"] == 1.0
    assert "test/seedbench_all" not in values  # no clip was asked about
    assert values["test/gqa_accuracy"] == 1.0
    assert values["test/pope_mean_accuracy"] == 0.0
    passport = callback.passports["test/mme_color_score"]
    assert passport.features == "parser lmms"
    assert passport.num_samples == 2
    assert passport.reference.startswith("mme questions ")
    assert callback.passports["test/pope_mean_f1"].num_samples == 6
    assert callback.passports["test/pope_mean_f1"] != callback.passports["test/pope_f1"]
    assert callback.passports.keys() == values.keys()
    assert (tmp_path / "predictions" / "seedbench.jsonl").exists()
    # The other style wants the bare letter.
    callback = QuestionAnswering(num_samples=0, style="llava")
    (values,) = trainer(tmp_path, callback).test(Toy("A. red"), loader(batches[1]), verbose=False)
    assert values["test/seedbench_image"] == 0.0


def test_unknown_benchmark_and_style(tmp_path) -> None:
    with pytest.raises(ConfigError, match="style is 'lava'"):
        QuestionAnswering(style="lava")
    batch = asked("seedbnech", {"answer": "A", "data_type": "image"})
    with pytest.raises(ConfigError, match="no benchmark 'seedbnech'. Did you mean 'seedbench'?"):
        trainer(tmp_path, QuestionAnswering()).test(Toy(), loader(batch), verbose=False)
