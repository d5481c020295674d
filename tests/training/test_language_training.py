import pytest
import torch

import vilau
from tests.models import tiny
from tests.training import toys
from vilau.errors import ConfigError
from vilau.layers.pixels import to_float, to_uint8
from vilau.models.vila_u.model import VilaU
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.language import without_words_to_draw
from vilau.training.pretrain import MultimodalPretraining
from vilau.types import (
    AnswerOutput,
    Document,
    DrawingOutput,
    Draws,
    ImageSegment,
    MultimodalBatch,
    PromptBatch,
    QuestionBatch,
    TextSegment,
)


def test_the_loss_weighs_text_and_pictures(tmp_path):
    module = toys.pretraining(tmp_path, caption_dropout=0.0, text_weight=2.0, visual_weight=0.25)
    batch = tiny.multimodal()
    means = module.model.losses(batch).means()
    recorder = toys.fit(module, toys.ToyData([batch]), 1)
    expected = float(2.0 * means["text"] + 0.25 * means["visual"])
    assert abs(recorder.losses[0] - expected) < 1e-5
    assert {"train/text_loss", "train/visual_loss"} <= set(recorder.logged[0])


def test_validation_is_a_mean_over_predictions_not_over_batches(tmp_path):
    module = toys.pretraining(tmp_path)
    batches = [
        MultimodalBatch(tiny.images(1), [tiny.caption(0, "red")]),
        MultimodalBatch(tiny.images(1), [tiny.caption(0, "a green star left of two squares")]),
    ]
    trainer = toys.trainer(1)
    trainer.validate(module, toys.ToyData([], batches), verbose=False)
    terms = [module.model.losses(b) for b in batches]
    mean = sum(t.sums["text"] for t in terms) / sum(t.counts["text"] for t in terms)
    torch.testing.assert_close(trainer.callback_metrics["val/text_loss"], mean.detach())


def test_dropping_captions_leaves_questions_that_are_answered_in_words():
    asked, answered = TextSegment("how many"), TextSegment("two", target=True)
    wish, drawn = TextSegment("draw it"), ImageSegment(1, target=True)
    looked = ImageSegment(0)
    document = Document((looked, asked, answered, wish, drawn))
    kept = without_words_to_draw(document).segments
    assert kept == (looked, asked, answered, TextSegment(""), drawn)
    mixed = Document((wish, TextSegment("here", target=True), drawn, asked, answered))
    assert without_words_to_draw(mixed).segments == (
        TextSegment(""),
        *mixed.segments[1:],
    )
    both = Document((wish, drawn, TextSegment("done", target=True), asked, answered))
    assert without_words_to_draw(both).segments == (TextSegment(""), *both.segments[1:])


def test_captions_are_dropped_at_the_given_rate(tmp_path):
    drawing, caption = tiny.drawing(0), tiny.caption(0)
    never = toys.pretraining(tmp_path, caption_dropout=0.0)
    assert never._maybe_dropped(drawing) is drawing
    always = toys.pretraining(tmp_path, caption_dropout=1.0)
    assert always._maybe_dropped(drawing).segments[0] == TextSegment("")
    assert always._maybe_dropped(caption) is caption
    half = toys.pretraining(tmp_path, caption_dropout=0.3)
    torch.manual_seed(0)
    dropped = sum(half._maybe_dropped(drawing) is not drawing for _ in range(1000))
    assert 250 < dropped < 350


def test_the_tower_stays_in_evaluation_mode_through_training(tmp_path):
    module = toys.pretraining(tmp_path)
    before = {k: v.clone() for k, v in module.model.tokenizer.state_dict().items()}
    toys.fit(module, toys.multimodal_data(), 3, val_check_interval=1)
    assert module.model.head.training
    assert not any(part.training for part in module.model.tokenizer.modules())
    after = module.model.tokenizer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_finetuning_goes_on_from_pretraining(tmp_path):
    first = toys.pretraining(tmp_path)
    second = toys.finetuning(tmp_path)
    batch = tiny.multimodal()
    for name, total in first.model.eval().losses(batch).sums.items():
        assert torch.equal(total, second.model.eval().losses(batch).sums[name])


def test_drawing_during_training(tmp_path):
    module = toys.pretraining(tmp_path).eval()
    assert isinstance(module, Draws)
    both = module.draw(["a red circle", "two squares"], seed=3)
    assert both.dtype == torch.uint8
    assert torch.equal(module.draw(["a red circle"], seed=3)[0], both[0])


def evaluation(folder, **changes):
    toys.pretraining(folder).export(str(folder / "model"))
    return Evaluation(str(folder / "model"), **changes).eval()


def test_evaluation_answers_and_draws(tmp_path, monkeypatch):
    module = evaluation(tmp_path, guidance_scale=2.0, top_k=10, top_p=0.9, seed=5, max_new_tokens=4)
    questions = QuestionBatch(tiny.images(2), ["what", "how many"], [["a"], ["b"]], ["x", "x"])
    prompts = PromptBatch(["a red circle", "two squares"], ["{}", "{}"], [[], []], first_index=3)
    drawn, decode = [], module.model.tokenizer.decode
    monkeypatch.setattr(
        module.model.tokenizer, "decode", lambda codes: drawn.append(codes) or decode(codes)
    )
    recorded = toys.Recorder()
    recorded.on_test_batch_end = lambda t, m, out, b, i, d=0: recorded.outputs.append(out)
    trainer = toys.trainer(1, callbacks=[recorded])
    loader = toys.ToyData([questions, prompts]).train_dataloader()
    trainer.test(module, loader, verbose=False)
    answers, drawings = recorded.outputs
    assert isinstance(answers, AnswerOutput)
    expected = module.model.answer(
        to_float(questions.images), questions.questions, max_new_tokens=4
    )
    assert answers.answers == expected
    assert isinstance(drawings, DrawingOutput)
    later = PromptBatch(["two squares"], ["{}"], [[]], first_index=4)
    alone = module.test_step(later, 0).images[0]
    together, again = drawn
    assert torch.equal(again[0], together[1])
    # The pixels of the same codes may be rounded otherwise in a batch of another size.
    assert (alone.int() - drawings.images[1].int()).abs().max() <= 1


def test_evaluation_draws_with_its_settings(tmp_path):
    module = evaluation(tmp_path, guidance_scale=1.0, top_k=1)
    greedy = module.draw(["a red circle"], seed=0)
    assert torch.equal(greedy, module.draw(["a red circle"], seed=1))
    images = module.model.generate_images("a red circle", guidance_scale=1.0, top_k=1)
    assert torch.equal(greedy, to_uint8(images))


def test_evaluation_hyper_parameters_are_plain(tmp_path):
    module = evaluation(tmp_path, guidance_scale=1.5)
    assert module.hparams["guidance_scale"] == 1.5
    assert all(v is None or type(v) in (str, int, float, bool) for v in module.hparams.values())


def test_layers_start_from_standardised_codes(tmp_path):
    module = toys.pretraining(tmp_path, standardise_codes=True)
    model, batch = module.model, tiny.multimodal()
    vectors = model.tokenizer.quantize(to_float(batch.images)).features.flatten(0, 1)
    mean, deviation = vectors.mean(dim=0), vectors.std(dim=0, correction=0)
    layers = [model.projector[0], model.head.code_projection]
    expected = [layer((vectors - mean) / deviation) for layer in layers]
    model.standardise_codes(batch.images)
    for layer, wanted in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer(vectors), wanted, atol=1e-4, rtol=1e-4)


def test_codes_are_standardised_once_before_the_first_step(tmp_path, monkeypatch):
    module = toys.pretraining(tmp_path, standardise_codes=True)
    steps = []
    monkeypatch.setattr(
        module.model, "standardise_codes", lambda *_: steps.append(module.global_step)
    )
    toys.fit(module, toys.multimodal_data(), 3)
    assert steps == [0]


def test_codes_cannot_be_standardised_without_images(tmp_path):
    module = toys.pretraining(tmp_path, standardise_codes=True)
    with pytest.raises(ConfigError, match="standardise_codes is true, but the first batch has no"):
        module.model.standardise_codes(tiny.images(2)[:0])


def test_published_checkpoints_are_trained_and_measured(tmp_path):
    """A published folder gives the steps of the folder in our own layout, in float32."""
    model = tiny.vila_u().to(torch.bfloat16)
    model.save(tmp_path / "ours")
    vilau.export(model, tmp_path / "published")
    runs = []
    for name in ("ours", "published"):
        module = SupervisedFineTuning(str(tmp_path / name), optimizer=tiny.optimizer())
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        assert module.model.head.training
        assert not module.model.tokenizer.training
        before = module.model.language.lm_head.weight.clone()
        runs.append(toys.fit(module, toys.multimodal_data(), 2).losses)
        assert not torch.equal(module.model.language.lm_head.weight, before)
        assert isinstance(Evaluation(str(tmp_path / name)).model, VilaU)
    assert runs[0] == runs[1]
    for folder in (tmp_path / "published" / "vision_tower", tmp_path / "published"):
        module = MultimodalPretraining(str(folder), tiny.language(), tiny.head(), tiny.PROMPT)
        tower = module.model.tokenizer
        assert torch.equal(tower.quantizer.book(0).weight, model.tokenizer.quantizer.book(0).weight)
        assert {p.dtype for p in tower.parameters()} == {torch.float32}


def test_codes_cannot_be_standardised_into_sharded_weights(tmp_path, monkeypatch):
    module = toys.pretraining(tmp_path, standardise_codes=True)
    monkeypatch.setattr("vilau.models.vila_u.start.DTensor", torch.nn.Parameter)
    with pytest.raises(ConfigError, match="standardise_codes is true, which writes into weights"):
        module.model.standardise_codes(tiny.images(2))


def test_groups_of_similar_length_reach_the_model_in_training_and_validation(tmp_path):
    """Each group is a pass of the language model, with the loss of one pass over all."""
    losses, passes = [], []
    for groups in (1, 3):
        module = toys.pretraining(tmp_path, caption_dropout=0.0, length_groups=groups)
        counted = []
        module.model.language.model.register_forward_hook(lambda *_, to=counted: to.append(1))
        batch = tiny.multimodal()
        losses.append(toys.fit(module, toys.ToyData([batch], [batch]), 1).losses[0])
        passes.append(len(counted))
        assert module.hparams["length_groups"] == groups
    assert abs(losses[0] - losses[1]) < 1e-5
    assert passes[1] == 3 * passes[0]
    with pytest.raises(ConfigError, match="model.length_groups is 0; write 1 or more"):
        toys.pretraining(tmp_path, length_groups=0)


def test_shared_images_reach_the_model_in_training_and_validation(tmp_path):
    """Two questions about one picture are one row of the language model, with the loss of two."""
    questions = [tiny.caption(0, text) for text in ("a blue square", "a red circle")]
    batch = MultimodalBatch(tiny.images(1), questions)
    losses, rows = [], []
    for shared in (False, True):
        module = toys.pretraining(tmp_path, share_images=shared)
        seen = []
        module.model.language.model.register_forward_hook(
            lambda _, __, found, to=seen: to.append(len(found.last_hidden_state))
        )
        losses.append(toys.fit(module, toys.ToyData([batch], [batch]), 1).losses[0])
        rows.append(set(seen))
        assert module.hparams["share_images"] == shared
    assert abs(losses[0] - losses[1]) < 1e-5
    assert rows == [{2}, {1}]
    module.model.language.config._attn_implementation = "flash_attention_2"
    with pytest.raises(
        ConfigError, match="model.share_images is true, but language.attention flash"
    ):
        module.setup("fit")


def test_evaluation_ranks_options_where_there_are_some(tmp_path):
    """The letter of the likeliest, whatever the model would say."""
    module = evaluation(tmp_path)
    options = [["a blue square", "a red circle"], ["two", "three", "a"]]
    images = tiny.images(2)
    batch = QuestionBatch(
        images, ["what is it", "how many"], [["A"], ["B"]], ["x", "y"], options=options
    )
    found = module.test_step(batch, 0).answers
    expected = [
        module.model.answer_log_likelihoods(
            to_float(images[n : n + 1]), batch.questions[n], options[n]
        )
        for n in range(2)
    ]
    assert found == ["ABC"[int(scores.argmax())] for scores in expected]
    batch.options = []
    assert module.test_step(batch, 0).answers == module.answer(images, batch.questions)
