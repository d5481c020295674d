"""What an optimiser step of pretraining is the gradient of, however it is spread out."""

import warnings

import pytest
import torch

from tests.models import tiny
from tests.models.forms import FORMS
from tests.training import pretrain_ranks, toys
from tests.training.test_sharding import free_port
from vilau.errors import ConfigError
from vilau.models.sequence.config import PromptConfig
from vilau.training.language import without_words_to_draw
from vilau.types import Document, ImageSegment, MultimodalBatch, TextSegment

PARTS = pretrain_ranks.PARTS


def assert_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=tolerance, msg=name)


def largest_difference(found, expected):
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Gradients and loss of a single process that has the whole step in one batch."""
    return pretrain_ranks.alone(tmp_path_factory.mktemp("whole"), [pretrain_ranks.whole_step()])


def test_parts_of_a_step_make_the_gradient_of_the_whole(whole, tmp_path):
    found, loss = pretrain_ranks.alone(tmp_path / "parts", PARTS)
    assert_same(found, whole[0])
    assert loss == pytest.approx(whole[1], rel=1e-5)
    packed, _ = pretrain_ranks.alone(tmp_path / "packed", PARTS, packing=True)
    assert_same(packed, whole[0])


def test_the_published_average_is_a_mean_of_means(whole, tmp_path):
    found, _ = pretrain_ranks.alone(tmp_path / "parts", PARTS, loss_average="published")
    module = toys.pretraining(tmp_path / "own", **pretrain_ranks.WEIGHTS)
    losses = [module.model.losses(part).total(module.loss_weights) for part in PARTS]
    torch.stack(losses).mean().backward()
    expected = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    assert_same(found, expected)
    assert largest_difference(found, whole[0]) > 1e-3


def test_one_process_without_accumulation_computes_the_same_either_way(tmp_path):
    batch = pretrain_ranks.whole_step()
    runs = [
        pretrain_ranks.alone(tmp_path / name, [batch], loss_average=name)
        for name in ("global", "published")
    ]
    assert runs[0][1] == runs[1][1]
    for name, gradient in runs[0][0].items():
        assert torch.equal(gradient, runs[1][0][name])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two processes found, each with two parts."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(pretrain_ranks.work, args=(folder, free_port()), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.multi_rank
@pytest.mark.parametrize("kind", ["ddp", "packed", "sharded", "grouped sharded"])
def test_parts_and_ranks_make_the_gradient_of_the_whole(ranks, whole, kind):
    for rank in range(2):
        assert_same(ranks[rank][kind][0], whole[0])
    assert sum(r[kind][1] for r in ranks) / 2 == pytest.approx(whole[1], rel=1e-5)


@pytest.mark.multi_rank
def test_one_mean_over_words_and_codes_is_one_over_ranks_too(ranks, tmp_path):
    """Liquid's: ranks and parts have unlike shares of words and of codes."""
    step = [pretrain_ranks.whole_step()]
    gradient, loss = pretrain_ranks.alone(tmp_path / "whole", step, family=toys.liquid)
    for rank in range(2):
        assert_same(ranks[rank]["liquid"][0], gradient)
    assert sum(r["liquid"][1] for r in ranks) / 2 == pytest.approx(loss, rel=1e-5)


@pytest.mark.multi_rank
@pytest.mark.parametrize("kind", ["vargpt", "vargpt sharded"])
def test_scale_by_scale_over_ranks_is_the_whole(ranks, kind, tmp_path):
    """VARGPT's: a rank that draws nothing, or reads nothing, still waits for no one."""
    step = [pretrain_ranks.whole_step()]
    gradient, loss = pretrain_ranks.alone(tmp_path / "whole", step, family=toys.vargpt)
    for rank in range(2):
        assert_same(ranks[rank][kind][0], gradient)
    assert sum(r[kind][1] for r in ranks) / 2 == pytest.approx(loss, rel=1e-5)


@pytest.mark.multi_rank
def test_the_published_average_over_ranks_is_another(ranks, tmp_path):
    expected, _ = pretrain_ranks.alone(tmp_path / "parts", PARTS, loss_average="published")
    for rank in range(2):
        assert_same(ranks[rank]["published"][0], expected)


@pytest.mark.multi_rank
def test_a_rank_that_has_nothing_to_draw_measures_along(ranks, whole, tmp_path):
    """Rank 0 validates words alone: the mean over codes is rank 1's, that over words both's."""
    module = toys.pretraining(tmp_path, **pretrain_ranks.WEIGHTS)
    module.model.load_state_dict(ranks[0]["trained"])
    both = [module.model.eval().losses(PARTS[part]) for part in (1, 2)]
    for name in ("text", "visual"):
        mean = sum(t.sums[name] for t in both) / sum(t.counts[name] for t in both)
        for rank in range(2):
            assert ranks[rank]["validation"][f"val/{name}_loss"] == pytest.approx(
                float(mean), rel=1e-5
            )


# ---------------------------------------------------------------------- what cannot be exact


def test_batches_that_do_not_know_their_step_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(MultimodalBatch, "join_step", lambda *_: None)
    with pytest.raises(
        ConfigError, match="do not tell the documents of their whole step.*published"
    ):
        pretrain_ranks.alone(tmp_path / "parts", PARTS)


def test_an_epoch_that_ends_inside_a_step_is_refused(tmp_path):
    module = toys.pretraining(tmp_path)
    with pytest.raises(
        ConfigError, match="an epoch of 3 batches ends inside a step of 2.*that 2 divides"
    ):
        toys.fit(module, toys.multimodal_data(), 2, accumulate_grad_batches=2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"loss_average": "mean"}, "model.loss_average is 'mean'; write global or published"),
        ({"caption_dropout": 1.5}, "model.caption_dropout is 1.5; write a share from 0 to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, told):
    with pytest.raises(ConfigError, match=told):
        toys.pretraining(tmp_path, **settings)


def test_packing_needs_a_kernel_that_keeps_documents_apart(tmp_path):
    module = toys.pretraining(tmp_path, packing=True)
    module.model.language.config._attn_implementation = "flex_attention"
    with pytest.raises(ConfigError, match="language.attention flex_attention.*packing: false"):
        toys.fit(module, toys.multimodal_data(), 1)


# ---------------------------------------------------------------------- dropped captions


@pytest.mark.parametrize("form", ["plain", "published"])
@pytest.mark.parametrize("null", ["prompt", "learned"])
def test_a_dropped_caption_leaves_the_null_prompt_of_sampling(tmp_path, form, null):
    prompt = PromptConfig(system="two.", form=form, null=null)
    model = tiny.vila_u(prompt=prompt)
    for name, start in (("text to image", "<im_start>"), ("text to video", "<vi_start>")):
        dropped = without_words_to_draw(FORMS[name], null=model.prompt.null_words)
        row = model.sequence.lay_out([dropped]).ids[0]
        sampled = model.sequence.drawing_prompts([model.prompt.null_words], start=start).ids[0]
        assert torch.equal(row[: len(sampled)], sampled)
        assert ("<null>" in model.words.decode(row)) == (null == "learned")


def test_training_drops_captions_for_the_null_of_its_model(tmp_path):
    module = toys.pretraining(tmp_path, caption_dropout=1.0)
    module.model.prompt = PromptConfig(system="", null="learned")
    assert module._maybe_dropped(tiny.drawing(0)).segments[0] == TextSegment("<null>")


def test_one_null_stands_for_all_the_words_of_a_turn():
    first, second, drawn = TextSegment("a"), TextSegment("red"), ImageSegment(1, target=True)
    looked, said = ImageSegment(0), TextSegment("two", target=True)
    document = Document((first, looked, second, drawn, first, said, second, drawn))
    assert without_words_to_draw(document, null="none").segments == (
        TextSegment("none"), looked, TextSegment(""), drawn, first, said, TextSegment("none"), drawn,
    )  # fmt: skip


def test_the_share_of_dropped_captions_is_logged_and_its_rate_kept(tmp_path):
    module = toys.pretraining(tmp_path, caption_dropout=1.0)
    recorder = toys.fit(module, toys.multimodal_data(), 1)
    assert recorder.logged[0]["train/dropped_captions"] == 1.0
    assert module.hparams["caption_dropout"] == 1.0
    assert module.hparams["prompt"]["null"] == "prompt"
    assert (module.hparams["loss_average"], module.hparams["packing"]) == ("global", False)


def test_captions_of_all_parts_are_dropped_before_the_first(tmp_path):
    """The counts depend on what is dropped: a shorter prompt leaves room for an answer."""
    module = toys.pretraining(tmp_path, caption_dropout=0.5)
    seen = []
    losses = module.model.losses

    def spied(batch, **settings):
        seen.append([without_words_to_draw(d) == d for d in batch.documents])
        return losses(batch, **settings)

    module.model.losses = spied
    drawings = [tiny.drawing(0, text) for text in ("a red circle", "two squares", "a star")]
    data = toys.ToyData([MultimodalBatch(tiny.images(1), drawings * 4) for _ in range(2)])
    recorder = toys.fit(module, data, 1, accumulate_grad_batches=2)
    assert seen[0] != seen[1]
    for shown, logged in zip(seen, recorder.logged, strict=True):
        assert logged["train/dropped_captions"] == pytest.approx(sum(shown) / 12)
    assert 0 < sum(map(sum, seen)) < 24


LONG = [tiny.drawing(0, "red " * 40), tiny.caption(1, "red " * 40), tiny.caption(1)]
"""With room for 40 tokens one is left out, one cut, and one as it is."""


def narrow(folder):
    module = toys.pretraining(folder, caption_dropout=0.0)
    module.model.sequence.max_length = 40
    return module


def long_data():
    short = MultimodalBatch(tiny.images(2), LONG[2:])
    long = MultimodalBatch(tiny.images(2), LONG)
    cut = MultimodalBatch(tiny.images(2), LONG[1:])
    return toys.ToyData([long, short, cut, long, short], [long, cut])


SENTENCE = (
    "max_length of 40 left out 2 of 10 training documents and cut the end off 3, and left out 1 of 5 validation "
    "documents and cut the end off 2; shorten them or raise max_length"
)


def test_documents_that_are_dropped_or_cut_are_counted_over_the_fit(tmp_path):
    module = narrow(tmp_path)
    with pytest.warns(UserWarning, match=SENTENCE) as warned:
        recorder = toys.fit(module, long_data(), 5)
    names = ("train/dropped_documents", "train/cut_documents")
    counted = [tuple(logged[name] for name in names) for logged in recorder.logged]
    assert counted == [(1, 1), (1, 1), (1, 2), (2, 3), (2, 3)]
    metrics = module.trainer.callback_metrics
    assert [float(metrics[name]) for name in names] == [2, 3]
    validated = [float(metrics[f"val/{name}_documents"]) for name in ("dropped", "cut")]
    assert validated == [1, 2]
    assert sum("training documents" in str(one.message) for one in warned) == 1


def test_a_resumed_run_goes_on_counting_documents(tmp_path):
    first = narrow(tmp_path)
    start = toys.trainer(3, limit_val_batches=0)
    with pytest.warns(
        UserWarning, match="left out 1 of 6 training documents and cut the end off 2;"
    ):
        start.fit(first, long_data())
    start.save_checkpoint(tmp_path / "kept.ckpt")
    # These data have no place to go to: the two batches that are left are the first two again.
    with pytest.warns(
        UserWarning, match="left out 2 of 10 training documents and cut the end off 3,"
    ):
        toys.trainer(5).fit(narrow(tmp_path), long_data(), ckpt_path=tmp_path / "kept.ckpt")
    # A checkpoint of an earlier version counts from here on.
    kept = torch.load(tmp_path / "kept.ckpt", weights_only=True)
    assert kept.pop("documents") == {"documents": 6, "dropped": 1, "cut": 2}
    torch.save(kept, tmp_path / "old.ckpt")
    with pytest.warns(
        UserWarning, match="left out 1 of 4 training documents and cut the end off 1,"
    ):
        toys.trainer(5).fit(narrow(tmp_path), long_data(), ckpt_path=tmp_path / "old.ckpt")


def test_ranks_ask_one_another_about_documents_only_where_totals_are_logged(tmp_path, monkeypatch):
    """With a second rank that counts the same; what was counted before a resume is not doubled."""
    asked = []

    def twice(counts, device):
        asked.append(counts)
        return {name: 2 * count for name, count in counts.items()}

    monkeypatch.setattr("vilau.training.language.many_ranks", lambda: True)
    monkeypatch.setattr("vilau.training.document_counts.over_ranks", twice)
    module = narrow(tmp_path)
    module.on_load_checkpoint({"documents": {"documents": 100, "dropped": 10, "cut": 1}})
    with pytest.warns(UserWarning, match="left out 14 of 120 training documents and cut the end o"):
        recorder = toys.fit(module, long_data(), 5, log_every_n_steps=2, limit_val_batches=0)
    name = "train/dropped_documents"
    assert [logged.get(name) for logged in recorder.logged] == [None, 12, 12, 14, 14]
    assert len(asked) == 4  # two logged steps, the epoch's end and the fit's
    kept = {}
    module.on_save_checkpoint(kept)
    assert kept["documents"] == {"documents": 120, "dropped": 14, "cut": 7}


def test_where_all_documents_fit_nothing_is_said_of_them(tmp_path):
    module = toys.pretraining(tmp_path, caption_dropout=0.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        recorder = toys.fit(module, toys.multimodal_data(), 2)
    assert not [name for name in recorder.logged[-1] if "_documents" in name]
    assert not [one for one in told if "max_length" in str(one.message)]
