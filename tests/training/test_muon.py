import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

from tests.training import toys
from vilau.errors import ConfigError
from vilau.training.muon import MuonAdamW, hidden_matrices
from vilau.training.optimizers import OptimizerConfig, build_optimizer


class Small(nn.Module):
    """Tokens in, hidden layers, tokens out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = nn.Embedding(10, 8)
        self.first = nn.Linear(8, 24)
        self.second = nn.Linear(24, 8)
        self.lm_head = nn.Linear(8, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.lm_head(self.second(self.first(self.embed_tokens(tokens)).relu()))


def built(model: nn.Module, **changes) -> dict:
    config = OptimizerConfig(
        **{"kind": "muon", "learning_rate": 0.01, "warmup_share": 0.0, **changes}
    )
    return build_optimizer(model.named_parameters(), config, num_steps=10)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        tokens = torch.randint(10, (6,), generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), tokens.roll(1)).backward()
        optimizer.step()


def test_hidden_matrices_are_muons_and_all_else_is_adamws():
    model = Small()
    optimizer = built(model, weight_decay=0.3)["optimizer"]
    hidden, decayed, free = (
        {name for name, p in model.named_parameters() if any(p is q for q in group["params"])}
        for group in optimizer.param_groups
    )
    assert hidden == {"first.weight", "second.weight"}
    assert decayed == {"embed_tokens.weight", "lm_head.weight"}
    assert free == {"first.bias", "second.bias", "lm_head.bias"}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3, 0.0]


def test_a_step_is_orthogonal_and_as_large_as_adamws():
    """Muon's first step is U V^T of the gradient, times 0.2 sqrt(max(rows, columns)) and the rate."""
    model = Small()
    before = model.first.weight.detach().clone()
    optimizer = built(model)["optimizer"]
    train(model, optimizer, range(1))
    step = (before - model.first.weight.detach()) / (0.01 * 0.2 * 24**0.5)
    # Five steps of the iteration bring singular values near 1, those of a gradient without full rank not all.
    kept = torch.linalg.svdvals(model.first.weight.grad) > 1e-2 * model.first.weight.grad.norm()
    values = torch.linalg.svdvals(step)
    assert kept.sum() >= 3
    assert ((values[kept] > 0.6) & (values[kept] < 1.3)).all()
    left, _, right = torch.linalg.svd(model.first.weight.grad, full_matrices=False)
    along = torch.einsum("ik,ij,kj->k", left, step, right)[kept]
    assert (along > 0.6).all()  # and they lie along the gradient's own directions


def test_other_parameters_move_as_adamw_moves_them():
    ours, plain = Small(), Small()
    optimizer = built(ours)["optimizer"]
    adamw = built(plain, kind="adamw")["optimizer"]
    train(ours, optimizer, range(1))
    train(plain, adamw, range(1))
    assert torch.equal(ours.lm_head.weight, plain.lm_head.weight)
    assert torch.equal(ours.embed_tokens.weight, plain.embed_tokens.weight)
    assert not torch.equal(ours.first.weight, plain.first.weight)


def test_the_schedule_reaches_all_groups():
    made = built(Small(), warmup_share=0.5)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.006] * 3)
    assert [g["lr"] for part in optimizer.parts for g in part.param_groups] == pytest.approx(
        [0.006] * 3
    )


def test_resumed_training_goes_on_exactly(tmp_path):
    whole = Small()
    train(whole, built(whole)["optimizer"], range(6))
    first = Small()
    optimizer = built(first)["optimizer"]
    train(first, optimizer, range(3))
    path = tmp_path / "state.pt"
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, path)
    saved = torch.load(path, weights_only=True)
    second = Small()
    second.load_state_dict(saved["model"])
    optimizer = built(second)["optimizer"]
    optimizer.load_state_dict(saved["optimizer"])
    assert optimizer.param_groups[0] is optimizer.parts[0].param_groups[0]
    train(second, optimizer, range(3, 6))
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name)), name


def test_a_closure_is_called_with_gradients():
    model = Small()
    optimizer = built(model)["optimizer"]

    def closure() -> float:
        optimizer.zero_grad()
        loss = model(torch.arange(4)).square().mean()
        loss.backward()
        return loss.item()

    assert isinstance(optimizer, MuonAdamW)
    assert optimizer.step(closure) > optimizer.step(closure)


def test_which_matrices_of_a_language_model(tmp_path: Path):
    module = toys.pretraining(tmp_path)
    named = list(module.trained_parameters())
    found = {id(p) for p in hidden_matrices([(n, p) for n, p in named if p.requires_grad])}
    names = {name for name, p in named if id(p) in found}
    assert any("self_attn.q_proj" in name for name in names)
    assert any("projector" in name for name in names)
    assert any("head.blocks" in name for name in names)
    for part in ("embed_tokens", "lm_head", "classifier", "codebook", "norm", "bias"):
        assert not any(part in name for name in names), part


def test_nothing_to_orthogonalise():
    message = "optimizer.kind is muon, but nothing that trains is a matrix between hidden states; write adamw."
    with pytest.raises(ConfigError, match=re.escape(message)):
        built(nn.Sequential(nn.Conv2d(2, 3, 1), nn.LayerNorm(3)))


@pytest.fixture
def alone(tmp_path):
    """A process group of this process only."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_sharded_weights_are_refused():
    mesh = init_device_mesh("cpu", (1,))
    sharded = nn.Parameter(DTensor.from_local(torch.ones(4, 4), mesh, [Replicate()]))
    with pytest.raises(ConfigError, match="weights are sharded over ranks; write adamw"):
        hidden_matrices([("layer.weight", sharded)])
