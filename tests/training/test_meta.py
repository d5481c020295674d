"""Every module at the paper's sizes on the meta device, stage after stage, as ``lightning check`` builds."""

import socket

import pytest
import torch

from tests.models import tiny
from tests.training import toys
from vilau.errors import CheckpointError
from vilau.models.sizes import LanguageConfig
from vilau.training.ablations.contrastive import ContrastiveAblation
from vilau.training.clip import ClipPretraining
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import MultimodalPretraining
from vilau.training.tower import TowerTraining

LLAMA = "meta-llama/Llama-2-7b-hf"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def count(module: torch.nn.Module) -> int:
    assert all(p.device.type == "meta" for p in module.parameters())
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", [TowerTraining, ContrastiveAblation])
def test_the_papers_stages_build_from_one_anothers_configs(tmp_path, kind):
    language = LanguageConfig(
        pretrained=LLAMA, tokenizer=LLAMA, rope_scaling_factor=2.0, max_length=8192
    )
    with torch.device("meta"):
        aligned = ClipPretraining(checkpoint="google/siglip-large-patch16-256")
        tower = kind()
        tower.configure_model()
    tower.export(str(tmp_path / "tower"))
    with torch.device("meta"):
        pretraining = MultimodalPretraining(str(tmp_path / "tower"), language=language)
    pretraining.export(str(tmp_path / "pretrain"))
    with torch.device("meta"):
        finetuning = SupervisedFineTuning(str(tmp_path / "pretrain"))
    finetuning.export(str(tmp_path / "finetune"))
    with torch.device("meta"):
        evaluation = Evaluation(str(tmp_path / "finetune"))

    assert count(aligned) == 652_150_786
    decoder = 42_449_795 + 1024 * 256 + 256  # and post_quant_conv
    assert count(tower.tower) == 652_150_786 + decoder
    model = pretraining.model
    assert count(model.language) == 6_738_448_384
    assert count(model.head) == 527_145_984
    assert count(finetuning) == count(evaluation) == count(pretraining)
    assert model.tokenizer.quantizer.codebook.weight.shape == (16384, 1024)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_384_pixel_tower_builds(tmp_path):
    with torch.device("meta"):
        module = TowerTraining(
            "google/siglip-so400m-patch14-384",
            {"depth": 16, "codebook_size": 16384},
            {"latent_grid": 24, "attention_grids": [24]},
            perceptual_weight=0.0,
        )
        images = module.tower.pixels(torch.zeros(1, 27 * 27, 1152))
    assert module.tower.spec.num_positions == 729
    assert images.shape == (1, 3, 384, 384)


def test_tiny_stages_build_from_meta_configs_too(tmp_path):
    source = tiny.siglip_folder(tmp_path / "siglip")
    with torch.device("meta"):
        tower = TowerTraining(source, tiny.quantizer(), tiny.decoder(), perceptual_weight=0.0)
    tower.export(str(tmp_path / "tower"))
    with torch.device("meta"):
        module = MultimodalPretraining(str(tmp_path / "tower"), tiny.language(), tiny.head())
    module.export(str(tmp_path / "model"))
    with torch.device("meta"):
        assert count(Evaluation(str(tmp_path / "model"))) == count(module)
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        Evaluation(str(tmp_path / "model"))


def test_weights_of_finished_stages_are_not_read_on_the_meta_device(tmp_path):
    toys.pretraining(tmp_path).export(str(tmp_path / "model"))
    with torch.device("meta"):
        count(SupervisedFineTuning(str(tmp_path / "model")))
