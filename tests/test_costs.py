"""The counts of ``vilau.costs`` against modules built on the meta device and torch's own FLOP counter."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.flop_counter import FlopCounterMode

import vilau.training
from vilau.costs import counts, estimate, shown
from vilau.costs.asked import POPE_MODES, Asked, asked
from vilau.costs.config import DATA_DEFAULTS, MODEL_DEFAULTS
from vilau.costs.documents import Form, document_forms
from vilau.costs.modules import MODULES, work_of
from vilau.costs.show import duration, quantity
from vilau.costs.stage import ZERO_SHOT_CLASSES
from vilau.data.benchmarks import WorldBenchmarks
from vilau.data.image_text import ImageTextPairs
from vilau.data.instructions import Instructions
from vilau.data.mixture import MultimodalMixture
from vilau.data.twin_benchmarks import TwinBenchmarks
from vilau.data.twins.sets import TwinSet
from vilau.layers.detector import SceneDetector
from vilau.layers.nearest import GRAM_BYTES
from vilau.layers.quantize import ResidualQuantizer
from vilau.models.language import start_language_model
from vilau.models.siglip import build_siglip
from vilau.models.sizes import LanguageConfig, SiglipSizes
from vilau.models.storage import save_folder
from vilau.models.vila_u.config import DecoderConfig, HeadConfig, QuantizerConfig, TowerConfig
from vilau.models.vila_u.head import DepthTransformer
from vilau.models.vila_u.tower import VisionTower
from vilau.training.ablations.contrastive import ContrastiveAblation
from vilau.training.ablations.guidance import GuidanceSweep
from vilau.training.alignment import AlignmentConfig
from vilau.training.clip import ClipPretraining
from vilau.training.detector import SceneDetectorTraining
from vilau.training.evaluate import Evaluation
from vilau.training.finetune import SupervisedFineTuning
from vilau.training.pretrain import MultimodalPretraining
from vilau.training.tower import TowerTraining
from vilau.world.language import CLASSES
from vilau.world.questions import POPE_MODES as MODES

TINY_SIGLIP = {
    "image_size": 32, "patch_size": 8, "hidden_size": 48, "num_layers": 3, "num_heads": 4, "mlp_size": 96,
    "text_layers": 2, "text_heads": 4, "text_mlp_size": 64, "text_length": 16, "vocab_size": 666,
    "tokenizer": "world-tokenizer",
}  # fmt: skip
TINY_QUANTIZER = {"depth": 3, "codebook_size": 32}
TINY_DECODER = {
    "channels": 8, "multipliers": [1, 2], "num_res_blocks": 1, "attention_grids": [4],
    "z_channels": 12, "norm_groups": 4, "output_patch": 4,
}  # fmt: skip
TINY_LANGUAGE = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "mlp_size": 96}
TINY_HEAD = {"width": 32, "num_layers": 2, "num_heads": 2}


def config(
    module: str, init_args: dict[str, Any], *, batch: int = 8, steps: int = 100, **more: Any
) -> dict[str, Any]:
    return {
        "model": {"class_path": f"vilau.training.{module}", "init_args": init_args},
        "data": {"class_path": "x.Data", "init_args": {"global_batch_size": batch}},
        "trainer": {"max_steps": steps},
        **more,
    }


@pytest.fixture
def siglip_folder(tmp_path: Path) -> str:
    sizes = SiglipSizes(**TINY_SIGLIP)
    folder = tmp_path / "siglip"
    save_folder(folder, kind="siglip", config={"sizes": vars(sizes)}, module=build_siglip(sizes))
    return str(folder)


def chain(siglip: str, *, paper: bool) -> dict[str, dict[str, Any]]:
    """The stages of a study: configs whose ``inputs`` are the configs of earlier ones."""
    if paper:
        tower = config("tower.TowerTraining", {}, batch=512, steps=50_000)
        words = {"pretrained": "meta-llama/Llama-2-7b-hf", "tokenizer": "meta-llama/Llama-2-7b-hf"}
        language: dict[str, Any] = {"language": words}
    else:
        tower = config(
            "ablations.contrastive.ContrastiveAblation",
            {
                "pretrained": siglip,
                "quantizer": TINY_QUANTIZER,
                "decoder": TINY_DECODER,
                "perceptual_weight": 0.0,
            },
        )
        language = {"language": TINY_LANGUAGE, "head": TINY_HEAD}
    pretrain = config(
        "pretrain.MultimodalPretraining",
        {"tower_checkpoint": None, **language},
        inputs={"model.tower_checkpoint": tower},
    )
    finetune = config(
        "finetune.SupervisedFineTuning", {"checkpoint": None}, inputs={"model.checkpoint": pretrain}
    )
    evaluate = config(
        "evaluate.Evaluation", {"checkpoint": None}, inputs={"model.checkpoint": finetune}
    )
    return {"tower": tower, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate}


def numbers(module: torch.nn.Module) -> tuple[int, int]:
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips on the meta device
@pytest.mark.parametrize("paper", [False, True], ids=["tiny", "paper"])
def test_parameters_equal_those_of_modules_on_the_meta_device(
    paper: bool, siglip_folder: str, tmp_path: Path
) -> None:
    stages = chain(siglip_folder, paper=paper)
    with torch.device("meta"):
        if paper:
            tower: TowerTraining = TowerTraining()
            language = LanguageConfig(**stages["pretrain"]["model"]["init_args"]["language"])
            head = HeadConfig()
        else:
            decoder = {**TINY_DECODER, "multipliers": (1, 2), "attention_grids": (4,)}
            tower = ContrastiveAblation(
                pretrained=siglip_folder,
                quantizer=QuantizerConfig(**TINY_QUANTIZER),
                decoder=DecoderConfig(**decoder),
                perceptual_weight=0.0,
            )
            language, head = LanguageConfig(**TINY_LANGUAGE), HeadConfig(**TINY_HEAD)
        tower.export(str(tmp_path / "tower"))
        pretrain = MultimodalPretraining(str(tmp_path / "tower"), language, head)
        pretrain.export(str(tmp_path / "pretrain"))
        finetune = SupervisedFineTuning(str(tmp_path / "pretrain"))
        evaluate = Evaluation(str(tmp_path / "pretrain"))
    built = {"tower": tower, "pretrain": pretrain, "finetune": finetune, "evaluate": evaluate}
    for name, module in built.items():
        cost = estimate(stages[name])
        assert cost is not None, name
        total, trained = numbers(module)
        assert cost["parameters"] == total, name
        if name != "evaluate":
            assert cost["trained_parameters"] == trained, name
    # A stage that starts from a folder is counted from what the folder says.
    cost = estimate(
        config("finetune.SupervisedFineTuning", {"checkpoint": str(tmp_path / "pretrain")})
    )
    assert cost is not None
    assert cost["parameters"] == numbers(finetune)[0]


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
@pytest.mark.parametrize("sizes", [TINY_SIGLIP, {}], ids=["tiny", "paper"])
def test_clip_parameters(sizes: dict[str, Any], loss: str) -> None:
    with torch.device("meta"):
        module = ClipPretraining(SiglipSizes(**sizes), alignment=AlignmentConfig(loss=loss))  # type: ignore[arg-type]
    cost = estimate(config("clip.ClipPretraining", {"siglip": sizes, "alignment": {"loss": loss}}))
    assert cost is not None
    assert (cost["parameters"], cost["trained_parameters"]) == numbers(module)


def test_detector_parameters() -> None:
    args: dict[str, Any] = {
        "attributes": {"shape": ["a", "b"], "color": ["c", "d", "e"]},
        "backgrounds": ["f", "g"],
    }
    with torch.device("meta"):
        module = SceneDetectorTraining(**args)
    cost = estimate(config("detector.SceneDetectorTraining", args))
    assert cost is not None
    assert (cost["parameters"], cost["trained_parameters"]) == numbers(module)


# ---------------------------------------------------------------------- operations


def measured(run: Any, *, samples: int = 1) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops() // samples


@pytest.mark.parametrize(
    "changes",
    [
        {"multipliers": (1, 2), "attention_grids": (4,)},
        {"kind": "patch", "multipliers": (1,), "output_patch": 8, "num_layers": 2, "head_size": 40},
    ],
    ids=["conv", "patch"],
)
def test_tower_operations_equal_torchs_own_count(changes: dict[str, Any]) -> None:
    sizes = SiglipSizes(**{**TINY_SIGLIP, "attention": "eager"})
    quantizer = QuantizerConfig(**TINY_QUANTIZER)
    decoder = DecoderConfig(**{**TINY_DECODER, **changes})
    torch.manual_seed(0)
    tower = VisionTower(TowerConfig(vars(sizes), quantizer, decoder)).eval()
    images = torch.zeros(2, 3, 32, 32)
    part = counts.tower(sizes, quantizer, decoder)
    siglip = part.siglip
    features = tower.features(images).detach()
    assert measured(lambda: tower.features(images), samples=2) == siglip.encoder.flops
    first = measured(lambda: tower.quantizer(features))
    assert first == part.gram_flops + 2 * part.search.flops
    assert measured(lambda: tower.quantizer(features), samples=2) == part.search.flops
    tower.quantizer.train()
    found = measured(lambda: tower.quantizer(features), samples=2)
    assert found == part.learning_search.flops == 3 * part.search.flops
    assert measured(lambda: tower.pixels(features), samples=2) == part.pixels.flops
    assert measured(lambda: tower.pooled(features), samples=2) == pytest.approx(
        siglip.pooling.flops, rel=0.01
    )
    assert measured(lambda: tower.text_features(["a"])) == pytest.approx(
        siglip.text.flops, rel=0.01
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"shared_codebook": False},
        {"learning": "gradient"},
        {"search": "published"},
        {"depth": 1},
        {"shared_codebook": False, "learning": "gradient"},
    ],
)
def test_other_quantisers_are_counted_too(changes: dict[str, Any]) -> None:
    quantizer = QuantizerConfig(**{**TINY_QUANTIZER, **changes})
    part = counts.tower(SiglipSizes(**TINY_SIGLIP), quantizer, DecoderConfig())
    torch.manual_seed(0)
    module = ResidualQuantizer(width=48, **vars(quantizer)).eval().requires_grad_(False)
    features = torch.randn(2, 16, 48)
    first = measured(lambda: module(features))
    assert first == part.gram_flops + 2 * part.search.flops
    assert sum(p.numel() for p in module.parameters()) == part.codebooks.parameters
    assert sum(b.numel() for b in module.buffers()) == part.buffers


def test_the_largest_codebook_with_a_gram_matrix() -> None:
    assert 4 * counts.LARGEST_GRAM**2 <= GRAM_BYTES < 4 * (counts.LARGEST_GRAM + 1) ** 2


def test_language_operations_equal_torchs_own_count() -> None:
    config_ = LanguageConfig(**TINY_LANGUAGE, attention="eager")
    model, _, filled = start_language_model(config_)
    body, logits = counts.language_model(filled, 24)
    ids = torch.zeros(1, 24, dtype=torch.int64)
    # torch counts the whole attention table, we its causal half
    half = 2 * 24**2 * filled.hidden_size * filled.num_layers
    hidden = torch.zeros(1, filled.hidden_size)
    # Some releases of transformers turn positions into angles by a matrix product, which is not worth counting.
    angles = measured(lambda: model.model.rotary_emb(hidden, torch.arange(24)[None]))
    assert measured(lambda: model.model(ids)) - angles == body.flops + half
    assert measured(lambda: model.lm_head(hidden)) == logits.flops


def test_depth_transformer_operations_equal_torchs_own_count() -> None:
    head, quantizer = HeadConfig(**TINY_HEAD), QuantizerConfig(**TINY_QUANTIZER)
    module = DepthTransformer(
        head,
        depth=3,
        code_width=48,
        hidden_width=64,
        codebook_size=32,
        partial_sums=lambda codes: torch.zeros(*codes.shape, 48),
    ).eval()
    count = counts.depth_transformer(head, quantizer, code_width=48, width=64, positions=5)
    codes = torch.zeros(1, 5, 3, dtype=torch.int64)
    assert measured(lambda: module(torch.zeros(1, 5, 64), codes)) == count.flops
    assert sum(p.numel() for p in module.parameters()) == count.parameters


def test_detector_operations_equal_torchs_own_count() -> None:
    args: dict[str, Any] = {"attributes": {"shape": ["a", "b"]}, "backgrounds": ["c"]}
    detector = SceneDetector(**args).eval()
    count = counts.scene_detector(args["attributes"], args["backgrounds"], 64, (24, 48, 64))
    assert measured(lambda: detector(torch.zeros(1, 3, 64, 64))) == count.flops


def test_published_tower_agrees_with_the_counts_on_record() -> None:
    """Counted before on the published code: 155 + 34 + 253 GFLOP per 256-pixel image, VGG16 40."""
    part = counts.tower(SiglipSizes(), QuantizerConfig(), DecoderConfig())
    assert part.siglip.encoder.flops / 1e9 == pytest.approx(155, rel=0.02)
    assert part.learning_search.flops / 1e9 == pytest.approx(34, rel=0.02)
    assert part.pixels.flops / 1e9 == pytest.approx(253, rel=0.02)
    assert counts.perceptual(256).flops / 1e9 == pytest.approx(40, rel=0.02)


# ---------------------------------------------------------------------- a stage's estimate


def test_steps_batch_and_samples_scale(siglip_folder: str) -> None:
    stage = chain(siglip_folder, paper=False)["pretrain"]
    one = estimate(stage)
    stage["trainer"]["max_steps"] = 300
    stage["data"]["init_args"]["global_batch_size"] = 16
    more = estimate(stage)
    assert one is not None
    assert more is not None
    assert one["samples"], more["samples"] == (800, 4800)
    assert more["flops"] == pytest.approx(6 * one["flops"])
    assert more["flops_per_step"] == pytest.approx(2 * one["flops_per_step"])
    assert more["hours"]["A100"] == pytest.approx(more["flops"] / (0.4 * 312e12) / 3600)
    assert more["memory_bytes_per_device"] > one["memory_bytes_per_device"]
    assert more["disk_bytes"] == one["disk_bytes"]


def test_without_the_contrastive_loss_a_tower_costs_less(siglip_folder: str) -> None:
    stage = chain(siglip_folder, paper=False)["tower"]
    aligned = estimate(stage)
    stage["model"]["init_args"]["contrastive_weight"] = 0.0
    alone = estimate(stage)
    assert aligned is not None
    assert alone is not None
    assert alone["flops"] < aligned["flops"]
    assert alone["parameters"] == aligned["parameters"]


def test_evaluation_holds_the_whole_model_on_each_device() -> None:
    stage = chain("", paper=True)["evaluate"]
    sharded = {"devices": 8, "strategy": {"class_path": "a.ModelParallelStrategy"}}
    found = estimate({**stage, "trainer": {**stage["trainer"], **sharded}})
    assert found is not None
    assert found["memory_bytes_per_device"] > 4 * found["parameters"] > 4 * 7e9


def test_sharding_divides_the_weights() -> None:
    stage = chain("", paper=True)["pretrain"]
    whole = estimate(stage)
    stage["trainer"] |= {
        "devices": 8,
        "precision": "bf16-true",
        "strategy": {"class_path": "a.ModelParallelStrategy"},
    }
    shared = estimate(stage)
    assert whole is not None
    assert shared is not None
    assert whole["parameters"] > 7e9
    assert whole["memory_bytes_per_device"] > 16 * 7e9
    assert shared["hours"]["A100"] == pytest.approx(whole["hours"]["A100"] / 8)
    assert "(8 x A100)" in shown(shared)["time"]
    # Autocast keeps copies of the weights in half precision.
    mixed = estimate({**stage, "trainer": {**stage["trainer"], "precision": "bf16-mixed"}})
    assert mixed is not None
    trained = mixed["trained_parameters"]
    assert mixed["memory_bytes_per_device"] > 16 * trained / 8 + 2 * trained
    # An eighth of 8 bytes per trained weight, and the activations of one document of batch 8.
    assert shared["memory_bytes_per_device"] < whole["memory_bytes_per_device"] / 8


def test_evaluation_counts_its_questions_and_prompts(siglip_folder: str) -> None:
    stage = chain(siglip_folder, paper=False)["evaluate"] | {"command": "test"}
    stage["data"] = {
        "class_path": "vilau.data.benchmarks.WorldBenchmarks",
        "init_args": {
            "num_questions": 10,
            "num_comp_questions": 5,
            "num_pope_questions": 1,
            "num_prompts": 2,
        },
    }
    cost = estimate(stage)
    assert cost is not None
    assert cost["samples"] == 20
    assert cost["hours"]["A100"] == pytest.approx(cost["flops"] / (0.1 * 0.4 * 312e12) / 3600)
    assert cost["trained_parameters"] == cost["disk_bytes"] == 0
    # Without images a question is its words alone; drawings cost what they did.
    stage["model"]["init_args"]["show_images"] = False
    unseen = estimate(stage)
    assert unseen is not None
    assert unseen["samples"] == 20
    assert 0.2 * cost["flops"] < unseen["flops"] < cost["flops"]
    assert unseen["tokens_per_step"] == cost["tokens_per_step"]
    stage["data"]["init_args"]["num_prompts"] = 0
    words = estimate(stage)
    assert words is not None
    assert words["tokens_per_step"] < cost["tokens_per_step"]
    assert words["memory_bytes_per_device"] < cost["memory_bytes_per_device"]


def test_hidden_clips_cost_what_hidden_pictures_do(siglip_folder: str) -> None:
    def flops(benchmark: str, *, shown: bool) -> float:
        stage = chain(siglip_folder, paper=False)["evaluate"] | {"command": "test"}
        stage["model"]["init_args"]["show_images"] = shown
        data = {"benchmarks": [benchmark], "num_questions": 10}
        stage["data"] = {
            "class_path": "vilau.data.twin_benchmarks.TwinBenchmarks",
            "init_args": data,
        }
        cost = estimate(stage)
        assert cost is not None
        return float(cost["flops"])

    clips, pictures = "world_msvd_qa", "world_vqav2"
    assert flops(clips, shown=True) > 4 * flops(pictures, shown=True)
    assert flops(clips, shown=False) == flops(pictures, shown=False) < flops(pictures, shown=True)


def test_a_sweep_draws_each_prompt_at_every_scale(siglip_folder: str) -> None:
    stage = chain(siglip_folder, paper=False)["evaluate"] | {"command": "test"}
    data = {
        "class_path": "vilau.data.caption_prompts.CaptionPrompts",
        "init_args": {"num_prompts": 8},
    }
    stage["data"] = data

    def flops(scales: list[float]) -> float:
        path = "vilau.training.ablations.guidance.GuidanceSweep"
        model = {"class_path": path, "init_args": {"checkpoint": None, "guidance_scales": scales}}
        cost = estimate(stage | {"model": model})
        assert cost is not None
        assert cost["samples"] == 8
        return float(cost["flops"])

    plain, guided = flops([1.0]), flops([2.0])
    assert plain < guided < 2 * plain  # another row of the language model, no other picture
    assert flops([1.0, 2.0, 3.0]) == pytest.approx(plain + 2 * guided)


def test_a_learned_null_is_one_more_token(siglip_folder: str) -> None:
    sizes = []
    for null in ("prompt", "learned"):
        pretrain = chain(siglip_folder, paper=False)["pretrain"]
        pretrain["model"]["init_args"]["prompt"] = {"null": null}
        cost = estimate(pretrain)
        assert cost is not None
        sizes.append(cost["parameters"])
    # A row of the table of words and one of the output layer.
    assert sizes[1] - sizes[0] == 2 * TINY_LANGUAGE["hidden_size"]


@pytest.mark.parametrize(
    "stage",
    [
        {"model": {"class_path": "my.own.Module"}},
        {"model": {"class_path": "vilau.training.tower.TowerTraining", "init_args": {"pretrained": "me/hub"}}},
        {"model": {"class_path": "vilau.training.finetune.SupervisedFineTuning", "init_args": {"checkpoint": None}}},
        {},
    ],
    ids=["other class", "hub name without known sizes", "no input", "empty"],
)  # fmt: skip
def test_what_cannot_be_known_is_none(stage: dict[str, Any]) -> None:
    assert estimate(stage) is None


@pytest.mark.parametrize(
    ("ours", "classes"),
    [
        (DATA_DEFAULTS, (ImageTextPairs, MultimodalMixture, Instructions, WorldBenchmarks)),
        (
            MODEL_DEFAULTS,
            (
                TowerTraining,
                ContrastiveAblation,
                SupervisedFineTuning,
                Evaluation,
                GuidanceSweep,
                SceneDetectorTraining,
            ),  # fmt: skip
        ),
    ],
    ids=["data", "model"],
)
def test_defaults_are_the_constructors_own(ours: dict[str, Any], classes: tuple[type, ...]) -> None:
    seen = set()
    for one in classes:
        for name, parameter in inspect.signature(one).parameters.items():
            # Only ImageTextPairs validates in a stage whose samples are counted.
            if name in ours and (name != "num_val_samples" or one is ImageTextPairs):
                assert ours[name] == parameter.default, f"{one.__name__}.{name}"
                seen.add(name)
    assert seen == set(ours)


def test_constants_of_the_drawn_world() -> None:
    assert len(CLASSES) == ZERO_SHOT_CLASSES
    assert len(MODES) == POPE_MODES


def test_every_module_of_the_kit_is_known() -> None:
    shared = {"TrainingModule", "LanguageTraining", "ReconstructionTraining", "TokenizerTraining"}
    found = {
        f"{module.__name__}.{name}"
        for module in (importlib.import_module(one) for one in training_modules())
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, LightningModule)
        and value.__module__ == module.__name__
        and name not in shared
    }
    assert found == set(MODULES)


def training_modules() -> list[str]:
    folder = Path(vilau.training.__path__[0])
    return [
        ".".join(("vilau", "training", *path.relative_to(folder).with_suffix("").parts))
        for path in folder.rglob("*.py")
        if path.stem != "__init__"
    ]


def test_shown_in_short_words(siglip_folder: str) -> None:
    cost = estimate(chain(siglip_folder, paper=False)["tower"])
    assert cost is not None
    text = shown(cost, accelerator="cpu")
    assert text["parameters"] == (
        f"{quantity(cost['parameters'])} ({quantity(cost['trained_parameters'])} trained)"
    )
    assert text["time"] == f"{duration(cost['hours']['1 CPU core'])} (1 CPU core)"
    assert "H100" in shown(cost, accelerator="gpu")["time"]
    large = shown({**cost, "memory_bytes_per_device": 50e9, "devices": 8}, accelerator="gpu")[
        "time"
    ]
    assert large.startswith("no room (8 x RTX 4090), ")
    assert "no room (8 x A100)" not in large
    assert shown({**cost, "hours": None, "flops": None})["FLOP"] == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (None, ""), (999, "999"), (999.6, "1 k"), (6_738_415_616, "6.74 G")],
)
def test_quantity(number: float | None, text: str) -> None:
    assert quantity(number) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "1 s"), (0.02, "72 s"), (0.5, "30 min"), (3.25, "3.2 h"), (4800, "200 days")],
)
def test_duration(hours: float, text: str) -> None:
    assert duration(hours) == text


def test_needs_no_torch() -> None:
    code = "import vilau.costs, sys; print([m for m in ('torch', 'numpy', 'lightning') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        ({"benchmarks": ["pope", "msvd_qa"]}, Asked(9_000, 13_157)),
        ({"benchmarks": ["seedbench"]}, Asked(14_233, 5_009)),
        ({"benchmarks": ["seedbench", "mmvet"], "num_questions": 1_000}, Asked(1_218)),
        ({"benchmarks": ["seedbench"], "num_questions": 15_000}, Asked(14_233, 767)),
        ({"benchmarks": ["pope", "mmbench"]}, Asked()),
    ],
)
def test_published_questions_are_counted_where_their_number_is_known(
    given: dict[str, Any], counted: Asked
) -> None:
    data = {"class_path": "vilau.data.published_benchmarks.PublishedBenchmarks", "init_args": given}
    assert asked({"data": data}) == counted


@pytest.mark.parametrize(
    ("given", "video"),
    [
        ({"num_questions": 6}, 0),
        ({"benchmarks": ["world_msvd_qa", "world_vqav2"], "num_questions": 6}, 1),
        ({"benchmarks": ["world_mjhq", "world_genai"], "num_prompts": 10}, 0),
        ({"benchmarks": ["world_genai"], "genai_prompts": 7}, 0),
    ],
)
def test_twins_are_counted_as_they_are_asked(given: dict[str, Any], video: int) -> None:
    """Against the data module's own sets; a few more questions come where some belong together."""
    data = {"class_path": "vilau.data.twin_benchmarks.TwinBenchmarks", "init_args": given}
    told = asked({"data": data})
    kwargs = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    module = TwinBenchmarks(num_prior_scenes=20, **kwargs)
    module.setup()
    questions = [one for one in module.sets if isinstance(one, TwinSet)]
    clips = sum(len(one.pictures(0)) > 1 for one in questions)
    assert told.questions + told.clip_questions == len(questions) * given.get("num_questions", 0)
    assert told.clip_questions == video * given.get("num_questions", 0)
    assert clips == video
    drawn = sum(len(one) for one in module.sets if not isinstance(one, TwinSet))
    assert told.prompts == drawn


def test_single_turns_read_their_picture_each_unless_it_is_shared() -> None:
    def forms(share_images: bool) -> list[Form]:
        data = {
            "class_path": "vilau.data.instructions.Instructions",
            "init_args": {"turns_per_image": 6, "drawing_share": 0.1, "single_turn_share": 0.5},
        }
        model = {"checkpoint": "unused", "share_images": share_images}
        return document_forms(config("finetune.SupervisedFineTuning", model) | {"data": data})

    def total(name: str, share_images: bool) -> float:
        return sum(form.share * getattr(form, name) for form in forms(share_images))

    for name in ("text", "targets"):
        assert total(name, True) == pytest.approx(total(name, False))
    # 0.1 drawn, 0.45 conversations, and 0.45 six times.
    assert total("images", True) == pytest.approx(1.0)
    assert total("images", False) == pytest.approx(0.1 + 0.45 + 6 * 0.45)


def test_hidden_pictures_and_clips_leave_their_words() -> None:
    data = {
        "class_path": "vilau.data.instructions.Instructions",
        "init_args": {
            "turns_per_image": 2,
            "drawing_share": 0.4,
            "video_share": 0.2,
            "hidden_share": 0.5,
            "exam_share": 1.0,
        },
    }
    model = {"checkpoint": "unused", "share_images": True}
    forms = document_forms(config("finetune.SupervisedFineTuning", model) | {"data": data})
    counted = [(form.share, form.images, form.text) for form in forms]
    assert counted == [
        (pytest.approx(0.24), 1, 70),  # 0.5 * 0.8 shown, of which 0.4 are drawn
        (pytest.approx(0.1), 8, 40),
        (pytest.approx(0.4), 0, 70),
        (pytest.approx(0.1), 0, 40),
        (pytest.approx(0.16), 1, 40),
    ]


def test_the_tower_encodes_a_picture_once_for_all_its_turns(siglip_folder: str) -> None:
    def tower_flops(share_images: bool) -> float:
        finetune = chain(siglip_folder, paper=False)["finetune"]
        finetune["model"]["init_args"]["share_images"] = share_images
        finetune["data"] = {
            "class_path": "vilau.data.instructions.Instructions",
            "init_args": {"turns_per_image": 6, "single_turn_share": 0.5},
        }
        work = work_of(finetune)  # 3 * (language) + tower, and language + tower
        return (3 * work.forward_flops - work.train_flops) / 2

    assert tower_flops(False) == pytest.approx(tower_flops(True))
    assert tower_flops(True) > 0
