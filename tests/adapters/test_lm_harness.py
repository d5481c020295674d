"""The model of lm-evaluation-harness: against the language model itself, and the package where it is installed."""

from __future__ import annotations

import sys
from types import ModuleType
from types import SimpleNamespace as Request
from typing import Any

import pytest
import torch

from tests.models import tiny
from vilau.adapters import lm_harness
from vilau.errors import CheckpointError, ConfigError

LONG = "a large red star touching a blue ring and a green moon on grass and " * 3
PAIRS = [
    ("what color is the star ?", " red"),
    ("what color is the star ? ", "blue things"),
    ("", "a red circle"),
    (LONG, "yes it is"),
]
WINDOW = 24


@pytest.fixture(scope="module")
def made() -> Any:
    model = tiny.vila_u()
    with torch.no_grad():
        model.language.lm_head.weight *= 20
    return model


@pytest.fixture
def reading(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class over a stand-in of the harness's base class, which asks for nothing."""
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"):
        module = ModuleType(name)
        module.LM = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    lm_harness.model_class.cache_clear()
    yield lm_harness.model_class()(made, batch_size=3, max_length=WINDOW)
    lm_harness.model_class.cache_clear()


def requests(*args: tuple) -> list[Request]:
    return [Request(args=one) for one in args]


def by_hand(made: Any, before: list[int], after: list[int]) -> tuple[float, bool]:
    ids = torch.tensor([(before + after)[-(WINDOW + 1) :]])
    with torch.no_grad():
        chances = made.language(input_ids=ids[:, :-1]).logits[0, -len(after) :].log_softmax(dim=-1)
    picked = chances[torch.arange(len(after)), torch.tensor(after)]
    return float(picked.sum()), bool((chances.argmax(dim=-1) == torch.tensor(after)).all())


def test_log_likelihoods_are_those_of_the_language_model(reading: Any, made: Any) -> None:
    def ids(text: str) -> list[int]:
        return made.words(text)["input_ids"]

    start = [made.words.bos_token_id or made.words.eos_token_id]
    expected = [
        by_hand(made, ids("what color is the star ?"), ids(" red")),
        by_hand(made, ids("what color is the star ?"), ids(" blue things")),
        by_hand(made, start, ids("a red circle")),
        by_hand(made, ids(LONG.rstrip()), ids(" yes it is")),
    ]
    found = reading.loglikelihood(requests(*PAIRS))
    for (score, greedy), (wanted, is_greedy) in zip(found, expected, strict=True):
        assert score == pytest.approx(wanted, rel=1e-4)
        assert greedy is is_greedy
    # What the model itself would say is greedy.
    (said,) = reading.generate_until(requests(("what ?", {"max_gen_toks": 3})))
    ((_, greedy),) = reading.loglikelihood(requests(("what ?", said)))
    assert greedy or made.words(f"what ?{said}")["input_ids"][: len(ids("what ?"))] != ids("what ?")


def test_long_texts_are_read_in_windows_that_score_each_token_once(reading: Any, made: Any) -> None:
    text = LONG * 2
    tokens = made.words(text)["input_ids"]
    windows = reading._windows(tokens)
    assert [token for _, after in windows for token in after] == tokens
    # The last token of a window is predicted, not read, so there is room for one more.
    assert {len(before) + len(after) for before, after in windows} == {WINDOW + 1}
    assert len(windows) > 2
    (score,) = reading.loglikelihood_rolling(requests((text,)))
    assert score == pytest.approx(sum(by_hand(made, *window)[0] for window in windows), rel=1e-4)
    assert reading.loglikelihood_rolling(requests(("",))) == [0]


def test_a_first_token_of_the_tokenizer_is_not_scored(
    reading: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLaMA's tokenizer begins texts with the token that the windows begin with anyway."""
    before = reading.loglikelihood_rolling(requests(("a red circle",)))
    words, first = made.words, made.words.bos_token_id

    def with_first(text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        found = words(text)["input_ids"]
        return {"input_ids": [first, *found] if add_special_tokens else found}

    with_first.bos_token_id = first  # type: ignore[attr-defined]
    monkeypatch.setattr(reading, "words", with_first)
    assert reading.loglikelihood_rolling(requests(("a red circle",))) == before


def test_text_ends_where_the_task_says(reading: Any) -> None:
    (whole,) = reading.generate_until(requests(("what color is the star ?", {"max_gen_toks": 12})))
    end = whole[len(whole) // 2]
    (cut,) = reading.generate_until(
        requests(("what color is the star ?", {"max_gen_toks": 12, "until": [end]}))
    )
    assert cut == whole.split(end)[0]
    with pytest.raises(
        ConfigError, match=rf"up to {WINDOW} new tokens, .* knows {WINDOW} positions"
    ):
        reading.generate_until(requests(("x", {"max_gen_toks": WINDOW})))
    with pytest.raises(ConfigError, match="sampled text"):
        reading.generate_until(requests(("x", {"do_sample": True, "temperature": 1.0})))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_told(value: float) -> None:
    broken = tiny.vila_u()
    with torch.no_grad():
        broken.language.lm_head.weight[5] = value
    reading = lm_harness.Reading(broken, batch_size=2)
    for name, asked in (
        ("loglikelihood", requests(("two", "three"), ("how many squares", "two"))),
        ("loglikelihood_rolling", requests(("a red circle",))),
        ("generate_until", requests(("a red", {"max_gen_toks": 2}))),
    ):
        with pytest.raises(CheckpointError, match="logits are NaN or infinite.* broken or its dty"):
            getattr(reading, name)(asked)
    assert not broken.language.lm_head._forward_hooks


def test_without_the_package_and_with_odd_arguments(
    monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    with pytest.raises(ConfigError, match="names no pretrained"):
        lm_harness.Reading()
    with pytest.raises(ConfigError, match="batch_size is auto"):
        lm_harness.Reading(made, batch_size="auto")
    with pytest.raises(ConfigError, match="Linear has no language model"):
        lm_harness.Reading(torch.nn.Linear(1, 1))
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    lm_harness.model_class.cache_clear()
    with pytest.raises(ConfigError, match="needs the package lm-eval"):
        lm_harness.evaluate(made, ["piqa"])


def test_the_harness_itself_agrees(made: Any) -> None:
    theirs = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed")
    lm_harness.model_class.cache_clear()
    ours = lm_harness.model_class()(made, batch_size=3, max_length=WINDOW)
    other = theirs.HFLM(
        pretrained=made.language,
        tokenizer=made.words,
        backend="causal",
        batch_size=3,
        max_length=WINDOW,
    )
    for name, asked in (
        ("loglikelihood", requests(*PAIRS)),
        ("loglikelihood_rolling", requests(("a red circle",), (LONG,))),
        ("generate_until", requests(("what ?", {"until": ["e"], "max_gen_toks": 9}))),
    ):
        mine, its = getattr(ours, name)(asked), getattr(other, name)(asked, disable_tqdm=True)
        for one, two in zip(mine, its, strict=True):
            assert one == (two if isinstance(two, str) else pytest.approx(two, rel=1e-5))
