import pytest
import torch

from vilau.errors import ConfigError, DataError
from vilau.generation.guidance import Guidance, check_scale, guide
from vilau.generation.sampling import (
    Sampling,
    draw,
    filter_probabilities,
    image_seed,
    image_seeds,
    per_depth,
    row_uniforms,
)

PROBS = torch.tensor([[0.05, 0.5, 0.2, 0.25], [0.97, 0.01, 0.01, 0.01]])
LOGITS = PROBS.log()


def test_without_filters_it_is_softmax_at_a_temperature():
    torch.testing.assert_close(filter_probabilities(LOGITS), PROBS)
    warm = filter_probabilities(LOGITS, temperature=2.0)
    torch.testing.assert_close(warm, (LOGITS / 2).softmax(dim=-1))


def test_top_k_keeps_the_likeliest_and_renormalises():
    kept = filter_probabilities(LOGITS, top_k=2)
    torch.testing.assert_close(kept[0], torch.tensor([0, 0.5, 0, 0.25]) / 0.75)
    assert (kept.count_nonzero(dim=-1) >= 2).all()


@pytest.mark.parametrize("top_k", [0, -1, 4, 900])
def test_top_k_of_all_or_none_filters_nothing(top_k):
    torch.testing.assert_close(filter_probabilities(LOGITS, top_k=top_k), PROBS)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.4, [1]), (0.6, [1, 3]), (0.76, [1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_choice_that_crosses_p(top_p, kept):
    found = filter_probabilities(LOGITS[:1], top_p=top_p)[0]
    assert found.nonzero()[:, 0].tolist() == kept
    torch.testing.assert_close(found[kept], PROBS[0, kept] / PROBS[0, kept].sum())


def test_top_p_always_keeps_the_first_and_counts_after_top_k():
    assert filter_probabilities(LOGITS, top_p=1e-6)[1].tolist() == [1.0, 0, 0, 0]
    # After top-2 the first has 2/3 of what is left, so p = 0.65 is crossed at once.
    both = filter_probabilities(LOGITS[:1], top_k=2, top_p=0.65)[0]
    assert both.tolist() == [0, 1.0, 0, 0]


def test_draws_follow_the_probabilities():
    probs = torch.tensor([0.3, 0.0, 0.05, 0.25, 0.1, 0.3])
    uniforms = row_uniforms([7], 20_000, torch.device("cpu"))[0]
    drawn = draw(probs.expand(20_000, 6), uniforms)
    counts = drawn.bincount(minlength=6).double()
    assert counts[1] == 0
    expected = probs.double() * 20_000
    allowed = probs > 0
    statistic = ((counts - expected).square() / expected)[allowed].sum()
    assert statistic < 18.5  # the 99.9 % point of chi-square with 4 degrees of freedom


def test_draws_at_the_ends_of_the_unit_interval():
    probs = torch.tensor([[0.0, 0.4, 0.6, 0.0]]).expand(2, 4)
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(probs, ends).tolist() == [1, 2]


def test_a_row_depends_on_its_own_seed_alone():
    alone = row_uniforms([5], 8, torch.device("cpu"))
    among = row_uniforms([3, 5, 9], 8, torch.device("cpu"))
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[0], among[1])
    assert among.min() >= 0
    assert among.max() < 1


def test_image_seeds_differ_by_run_and_by_image():
    seeds = {image_seed(run, image) for run in range(20) for image in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert image_seed(1, 11) != image_seed(11, 1)


def test_guidance_moves_away_from_the_unconditional():
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    assert torch.equal(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)
    assert guide(conditional, unconditional, 3.0).tolist() == [2.0, 0.0]


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_that_cannot_guide_is_refused(scale):
    with pytest.raises(ConfigError, match="guidance_scale is .*write 1"):
        check_scale(scale)


def test_sampling_filters_then_draws_and_is_greedy_at_temperature_zero():
    uniforms = torch.tensor([0.7, 0.99])
    drawn = Sampling(temperature=2.0, top_k=2, top_p=0.9)(LOGITS, uniforms)
    probs = filter_probabilities(LOGITS, temperature=2.0, top_k=2, top_p=0.9)
    assert torch.equal(drawn, draw(probs, uniforms))
    assert Sampling(temperature=0.0)(LOGITS, uniforms).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": -1.0}, r"temperature is -1.0; write 0 \(greedy\) or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; write a share above 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        Sampling(**settings)


def test_one_seed_makes_one_for_each_image_and_several_are_taken_as_they_are():
    assert image_seeds(4, 3) == [image_seed(4, i) for i in range(3)]
    assert image_seeds([5, 6], 2) == [5, 6]
    with pytest.raises(DataError, match="seed holds 2 seeds for 3 results; write one for each"):
        image_seeds([5, 6], 3)


def test_guidance_is_one_scale_or_one_for_each_result():
    assert Guidance(2.0).schedule(2, 3).tolist() == [[2.0] * 3] * 2
    assert Guidance([1.0, 5]).schedule(2, 2).tolist() == [[1.0, 1.0], [5.0, 5.0]]
    with pytest.raises(DataError, match="guidance_scale holds 2 scales for 3 results; write one"):
        Guidance([1.0, 2.0]).schedule(3, 4)


def test_a_ramp_goes_evenly_from_the_first_position_to_the_last():
    schedules = Guidance(1.3), Guidance([1.3], start=1.1)
    exact = [one.schedule(1, 64) for one in schedules]
    torch.set_default_dtype(torch.bfloat16)  # as Lightning's bf16-true does
    try:
        for one, expected in zip(schedules, exact, strict=True):
            torch.testing.assert_close(one.schedule(1, 64), expected, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert Guidance(3.0, start=1.0).schedule(1, 5).tolist() == [[1.0, 1.5, 2.0, 2.5, 3.0]]
    both = Guidance([3.0, 0.0], start=1.0).schedule(2, 3)
    assert both.tolist() == [[1.0, 2.0, 3.0], [1.0, 0.5, 0.0]]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"scale": -1.0}, r"guidance_scale is -1.0; write 1 \(no guidance\) or more"),
        ({"scale": [2.0, float("nan")]}, "guidance_scale is nan"),
        ({"scale": 3.0, "start": -0.5}, r"guidance_start is -0.5; write 1"),
    ],
)
def test_guidance_that_makes_no_sense_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        Guidance(**settings)


def test_rows_of_scale_one_stay_as_they_are():
    conditional, unconditional = torch.randn(2, 50), torch.randn(2, 50) * 1e4
    scales = torch.tensor([[1.0], [3.0]])
    guided = guide(conditional, unconditional, scales)
    assert torch.equal(guided[0], conditional[0])
    assert torch.equal(guided[1], guide(conditional[1], unconditional[1], 3.0))


def test_settings_may_differ_from_depth_to_depth():
    found = per_depth(3, temperature=0.5, top_k=[9, 4, 1], top_p=[1.0, 0.9, 0.8])
    assert found == [Sampling(0.5, 9, 1.0), Sampling(0.5, 4, 0.9), Sampling(0.5, 1, 0.8)]
    with pytest.raises(ConfigError, match="top_k holds 2 values for residual depth 3; write 3 val"):
        per_depth(3, top_k=[9, 4])
    with pytest.raises(ConfigError, match="top_p is 2.0; write a share"):
        per_depth(2, top_p=[1.0, 2.0])
