import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.models import tiny
from vilau.errors import CheckpointError, ConfigError
from vilau.models.language import build_language_model, start_language_model, text_tokenizer
from vilau.models.sizes import SPECIAL_TOKENS, WORLD_TOKENIZER, LanguageConfig
from vilau.models.tokenizers import load_tokenizer

OLD = 640
"""Rows of the pretrained vocabulary, fewer than the tokenizer's."""


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A LLaMA of uncommon settings, stored in float16 as LLaMA-2 is."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, vocab_size=OLD, rms_norm_eps=1e-2, rope_theta=50.0,
        tie_word_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).to(torch.float16).save_pretrained(folder)
    return str(folder)


def states(model):
    x = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval().model(inputs_embeds=x).last_hidden_state


def start(source, **changes):
    return start_language_model(
        LanguageConfig(pretrained=source, tokenizer=WORLD_TOKENIZER, **changes)
    )


def test_special_marks_are_single_tokens_in_the_published_order():
    words = text_tokenizer(tiny.language())
    ids = words.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert words(SPECIAL_TOKENS[0], add_special_tokens=False)["input_ids"] == ids[:1]
    assert len(set(ids)) == 4
    assert words.unk_token_id not in ids


def test_a_random_model_has_a_row_per_token():
    model, words, config = start_language_model(tiny.language())
    assert config.vocab_size == len(words) == model.get_input_embeddings().weight.shape[0]


def test_a_pretrained_model_keeps_its_own_settings(pretrained):
    with pytest.raises(
        ConfigError, match="extra is .*rope_theta.*leave it out, or write pretrained: null"
    ):
        start(pretrained, extra={"rope_theta": 5e5})


def test_pretrained_weights_become_float32_and_new_rows_their_mean(pretrained):
    model, words, config = start(pretrained)
    assert model.dtype == torch.float32
    assert config.vocab_size == len(words) > OLD
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        torch.testing.assert_close(table[OLD:], table[:OLD].mean(0).expand(len(words) - OLD, -1))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_config_rebuilds_what_was_loaded(pretrained, factor):
    model, _, config = start(pretrained, rope_scaling_factor=factor)
    again = build_language_model(config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(states(again), states(model))


def test_rope_scaling_stretches_pretrained_positions(pretrained):
    plain, stretched = (start(pretrained, rope_scaling_factor=f)[0] for f in (1.0, 2.0))
    torch.testing.assert_close(
        stretched.model.rotary_emb.inv_freq * 2, plain.model.rotary_emb.inv_freq
    )
    assert not torch.equal(states(plain), states(stretched))


def test_shapes_of_a_local_folder_are_built_on_the_meta_device(pretrained):
    with torch.device("meta"):
        model, words, config = start(pretrained)
    assert all(p.device.type == "meta" for p in model.parameters())
    assert model.get_input_embeddings().weight.shape[0] == config.vocab_size == len(words)


def test_weights_that_are_nowhere(tmp_path):
    with pytest.raises(
        CheckpointError, match="llama or gemma weights .*nowhere are neither a local folder"
    ):
        start(str(tmp_path / "nowhere"))


def test_another_architecture_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="describes a siglip, but a llama or gemma is needed"):
        start(tiny.siglip_folder(tmp_path / "siglip"))


def test_a_tokenizer_that_is_nowhere(tmp_path):
    with pytest.raises(CheckpointError, match="tokenizer .*nowhere is neither.*give that folder"):
        load_tokenizer(str(tmp_path / "nowhere"))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="language.num_heads is 3.*write a divisor of 32"):
        tiny.language(num_heads=3)
