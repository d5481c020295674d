"""Overlays, identities and shared runs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.study.conftest import STUDIES, Workshop
from vilau.errors import ConfigError
from vilau.study.plan import Options, make_plan, run_config

REPO = Path(__file__).parents[2]


def config_of(shop: Workshop, stage: str, variant: str = "quiet", **options: object) -> dict:
    plan = shop.plan(**options)
    cell = plan.cell(variant, plan.seeds[0], stage)
    assert cell is not None
    return run_config(plan, plan.runs[cell.run], dict.fromkeys(plan.runs, "/product"))


def test_later_overlays_win(shop: Workshop) -> None:
    assert config_of(shop, "first", scale="small")["trainer"]["max_steps"] == 40
    assert config_of(shop, "first")["trainer"]["max_steps"] == 24  # tiny is the study's default
    shop.replace("gate:", "set: {trainer.max_steps: 7, model.noise: 9.0}\n    gate:")
    config = config_of(shop, "first")
    assert config["trainer"]["max_steps"] == 7
    assert config["model"]["init_args"]["noise"] == 0.0  # the variant's
    config = config_of(
        shop, "first", overrides=["first.model.noise=0.5", "first.trainer.max_steps=3"]
    )
    assert config["model"]["init_args"]["noise"] == 0.5
    assert config["trainer"]["max_steps"] == 3


def test_a_scale_reaches_a_callback_by_its_name(shop: Workshop) -> None:
    (callback,) = config_of(shop, "first")["trainer"]["callbacks"]
    assert callback["init_args"]["reference"] == "tiny-set"


def test_a_study_has_sizes_of_its_own(shop: Workshop) -> None:
    shop.replace("claims:", "scales:\n  tiny: {second: {trainer.max_steps: 5}}\nclaims:")
    assert config_of(shop, "second")["trainer"]["max_steps"] == 5
    shop.replace("tiny: {second:", "tiny: {secnd:")
    with pytest.raises(ConfigError, match=r"there is no stage `secnd`\. Did you mean `second`"):
        shop.plan()


def test_a_variant_has_sizes_per_scale(shop: Workshop) -> None:
    both = "label: Noisy, set: {first.model.noise: 1.5, first.model.width: 4}, scales: {tiny: {first.model.width: 9}}"
    shop.replace("label: Noisy, set: {first.model.noise: 1.5}", both)
    arguments = config_of(shop, "first", "noisy")["model"]["init_args"]
    assert (arguments["noise"], arguments["width"]) == (1.5, 9)
    assert config_of(shop, "first", "noisy", scale="small")["model"]["init_args"]["width"] == 4
    quiet = config_of(shop, "first")["model"]["init_args"]
    assert quiet["width"] == 8
    shop.replace("scales: {tiny:", "scales: {tyni:")
    with pytest.raises(ConfigError, match=r"there is no scale `tyni`\. Did you mean `tiny`\?"):
        shop.plan()


def test_a_stage_takes_its_sizes_from_another(shop: Workshop) -> None:
    shop.replace("    inputs: {model", "    scale: first\n    inputs: {model")
    assert config_of(shop, "second")["trainer"]["max_steps"] == 24
    # Also from one that only other studies have.
    shop.replace("scale: first", "scale: unheard_of")
    assert config_of(shop, "second")["trainer"]["max_steps"] == 1
    shop.replace("scale: unheard_of", "scale: unheard")
    with pytest.raises(
        ConfigError, match=r"no scale has a stage `unheard`\. Did you mean `unheard_of`"
    ):
        shop.plan()


def test_a_stage_of_some_variants_alone(shop: Workshop) -> None:
    alone = "    variants: [noisy]\n    gate:"
    plan = shop.replace("    gate:", alone).plan()
    assert plan.cell("quiet", 0, "first") is None
    quiet, noisy = (plan.cell(variant, 0, "second") for variant in ("quiet", "noisy"))
    assert quiet is not None
    assert noisy is not None
    assert plan.runs[quiet.run].inputs == {}
    assert list(plan.runs[noisy.run].inputs) == ["model.checkpoint"]
    shop.replace("variants: [noisy]", "variants: [nosy]")
    with pytest.raises(ConfigError, match=r"there is no variant `nosy`\. Did you mean `noisy`\?"):
        shop.plan()


SECOND_AT_TINY = "    scales: [tiny]\n    inputs: {model.checkpoint: first}"


def test_a_stage_of_some_scales_alone(shop: Workshop) -> None:
    shop.replace("    inputs: {model.checkpoint: first}", SECOND_AT_TINY)
    assert list(shop.plan().stages) == ["first", "second", "evaluate"]
    plan = shop.plan(scale="small")
    assert list(plan.stages) == ["first", "evaluate"]
    assert {cell.stage for cell in plan.cells} == {"first", "evaluate"}
    first, evaluate = (plan.cell("quiet", 0, stage) for stage in ("first", "evaluate"))
    assert first is not None
    assert evaluate is not None
    # It takes what the stage that is not there would have taken.
    assert plan.runs[evaluate.run].inputs == {"model.checkpoint": first.run}
    assert make_plan(plan.study, plan.options).runs == plan.runs


def test_what_hands_nothing_on_leaves_the_input_as_it_is(shop: Workshop) -> None:
    shop.replace("    inputs: {model.checkpoint: first}", "    scales: [tiny]")
    plan = shop.plan(scale="small")
    evaluate = plan.cell("quiet", 0, "evaluate")
    assert evaluate is not None
    assert plan.runs[evaluate.run].inputs == {}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"[tiny]": "[tyni]"}, {}, r"there is no scale `tyni`\. Did you mean `tiny`\?"),
        ({}, {"until": "second"}, "scale `small` has no stage `second`; leave it out of --set"),
        ({}, {"overrides": ["second.model.lr=1"]}, "scale `small` has no stage `second`; leave"),
        (
            {"Val: first/val/accuracy": "Val: second/val/accuracy"},
            {},
            r"toy.yaml: scale `small` has no stage `second`, which measures `Val`; write another table under "
            r"table\.scales\.small\.",
        ),
        (
            {"chance: {Top-1: evaluate/test/chance}": "chance: {Top-1: second/val/chance}"},
            {},
            "no stage `second`, which measures `Top-1`",
        ),
        (
            {'because."}': 'because.", scales: [smal]}', "Below chance nothing can be compared.": "because."},
            {},
            r"there is no scale `smal`\. Did you mean `small`\?",
        ),
    ],
)  # fmt: skip
def test_a_stage_that_a_scale_lacks_is_not_asked_for(
    shop: Workshop, changes: dict[str, str], options: dict[str, object], message: str
) -> None:
    shop.replace("    inputs: {model.checkpoint: first}", SECOND_AT_TINY)
    for old, new in reversed(changes.items()):
        shop.replace(old, new)
    with pytest.raises(ConfigError, match=message):
        shop.plan(scale="small", **options)


def test_several_parts_are_merged(shop: Workshop) -> None:
    (shop.folder / "parts/wide.yaml").write_text("model: {init_args: {width: 32}}\n")
    shop.replace("[parts/train.yaml]", "[parts/train.yaml, parts/wide.yaml]")
    arguments = config_of(shop, "second")["model"]["init_args"]
    assert (arguments["width"], arguments["lr"]) == (32, 0.01)


def test_inputs_seed_machine_and_threads_are_filled_in(shop: Workshop) -> None:
    config = config_of(shop, "second", seeds=[3])
    assert config["model"]["init_args"]["checkpoint"] == "/product"
    assert config["seed_everything"] == 3
    assert config["trainer"]["accelerator"] == "cpu"
    gpu = config_of(shop, "second", machine="gpu")
    assert (gpu["trainer"]["accelerator"], gpu["trainer"]["max_steps"]) == ("gpu", 16)


def test_the_command_line_has_the_last_word_on_the_trainer(shop: Workshop) -> None:
    (shop.folder / "machines/gpu.yaml").write_text(
        "trainer: {accelerator: gpu, devices: 1, precision: bf16-mixed, callbacks: [{class_path: a.B}]}\n"
    )
    said = ["second.trainer.precision=32-true", "second.trainer.callbacks+={class_path: c.D}"]
    trainer = config_of(shop, "second", machine="gpu", overrides=said)["trainer"]
    assert (trainer["precision"], trainer["devices"]) == ("32-true", 1)
    assert [one["class_path"] for one in trainer["callbacks"]] == ["a.B", "c.D"]
    other = config_of(shop, "first", machine="gpu", overrides=said)["trainer"]
    assert other["precision"] == "bf16-mixed"
    here = config_of(shop, "second", overrides=said)["trainer"]["callbacks"]
    assert [one["class_path"].rpartition(".")[2] for one in here].count("D") == 1


def test_equal_stages_are_one_run(shop: Workshop) -> None:
    shop.replace("set: {first.model.noise: 1.5}", "set: {second.model.noise: 1.5}")
    shop.replace("set: {first.model.noise: 0.0}", "set: {}")
    plan = shop.plan()
    assert len(plan.cells) == 6
    assert len(plan.runs) == 5
    first = plan.cell("quiet", 0, "first")
    assert first is not None
    assert [cell.variant for cell in plan.users(first.run)] == ["quiet", "noisy"]


def test_identity_ignores_machine_and_order_and_follows_settings(shop: Workshop) -> None:
    names = set(shop.plan().runs)
    assert set(shop.plan(machine="gpu").runs) == names
    assert set(shop.plan(overrides=["first.checkpoint_every_n_steps=2"]).runs) == names
    shop.replace("{width: 8, lr: 0.05}", "{lr: 0.05, width: 8}", "parts/train.yaml")
    assert set(shop.plan().runs) == names
    assert not set(shop.plan(overrides=["first.model.width=9"]).runs) & names
    assert not set(shop.plan(seeds=[1]).runs) & names
    # A later stage's change leaves the earlier ones alone.
    later = set(shop.plan(overrides=["evaluate.data.num_samples=9"]).runs)
    assert {n for n in names & later if not n.startswith("evaluate")} == {
        n for n in names if not n.startswith("evaluate")
    }


def test_names_do_not_change_between_versions_of_the_engine(shop: Workshop) -> None:
    # If this fails, finished runs of users are trained again: raise ENGINE_VERSION knowingly.
    assert next(iter(shop.plan().runs)) == "first-f1217bef"


def test_a_stage_with_its_own_seed_is_shared_by_all_seeds(shop: Workshop) -> None:
    shop.replace("    gate:", "    seed: 7\n    gate:")
    plan = shop.plan(seeds=[0, 1])
    firsts = [run for run in plan.runs.values() if run.stage.name == "first"]
    assert [run.seed for run in firsts] == [7, 7]
    assert len(plan.runs) == 2 + 4 + 4


def test_gated_stages_come_before_all_later_ones(shop: Workshop) -> None:
    shop.replace("    inputs: {model.checkpoint: first}\n", "")
    plan = shop.plan()
    second = plan.cell("quiet", 0, "second")
    assert second is not None
    # Without its input the second stage is the same for both variants, and waits for both gates.
    assert plan.after[second.run] == {name for name in plan.runs if name.startswith("first")}


def test_only_and_until(shop: Workshop) -> None:
    plan = shop.plan(only=["noisy"], until="second")
    assert [(cell.variant, cell.stage) for cell in plan.cells] == [
        ("noisy", "first"),
        ("noisy", "second"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "tyni"}, r"there is no scale `tyni`\. Did you mean `tiny`\?"),
        ({"machine": "gpus"}, r"there is no machine `gpus`\. Did you mean `gpu`\?"),
        ({"only": ["quite"]}, r"--only quite: there is no variant `quite`\. Did you mean `quiet`"),
        ({"until": "evaluation"}, r"--until evaluation: there is no stage .* `evaluate`"),
        ({"overrides": ["frist.model.lr=1"]}, r"--set frist\.model\.lr=1: .* Did you mean `first`"),
        ({"overrides": ["first.modle.lr=1"]}, r"unknown key `modle\.lr`\. Did you mean `model`"),
        ({"overrides": ["first.model.lr"]}, r"--set first\.model\.lr: write stage\.key=value"),
        ({"overrides": ["first.trainer.callbacks.Images.reference=x"]}, "has no item `Images`"),
    ],
)
def test_unknown_names_on_the_command_line(
    shop: Workshop, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        shop.plan(**options)


def test_a_missing_part_is_told_with_the_closest(shop: Workshop) -> None:
    shop.replace("config: parts/train.yaml", "config: parts/trian.yaml")
    line = shop.line_of("parts/trian.yaml")
    message = rf"toy\.yaml:{line}: there is no file `parts/trian\.yaml`\. Did you mean `parts/train"
    with pytest.raises(ConfigError, match=message):
        shop.plan()


def test_an_overlay_that_does_not_fit_names_its_line(shop: Workshop) -> None:
    shop.replace("trainer.max_steps: 16", "trainer.max_steps.more: 16", "scales/tiny.yaml")
    with pytest.raises(ConfigError, match=r"tiny\.yaml:3: second: `trainer\.max_steps\.more`"):
        shop.plan()


@pytest.mark.parametrize("steps", ["0", "-40", "0.5"])
def test_a_number_of_steps_that_makes_no_sense_names_its_line(shop: Workshop, steps: str) -> None:
    told = rf"second: `trainer\.max_steps` holds {steps}; write 1 or more\."
    with pytest.raises(ConfigError, match=rf"^--set second\.trainer\.max_steps={steps}: {told}"):
        shop.plan(overrides=[f"second.trainer.max_steps={steps}"])
    shop.replace("trainer.max_steps: 16", f"trainer.max_steps: {steps}", "scales/tiny.yaml")
    with pytest.raises(ConfigError, match=rf"tiny\.yaml:3: {told}"):
        shop.plan()
    shop.replace("max_steps: 40", f"max_steps: {steps}", "parts/train.yaml")
    line = shop.line_of("max_steps", "parts/train.yaml")
    with pytest.raises(ConfigError, match=rf"train\.yaml:{line}: {told}"):
        shop.plan(scale="small")


def test_as_many_steps_as_the_epochs_take(shop: Workshop) -> None:
    shop.replace("trainer.max_steps: 16", "trainer.max_steps: -1", "scales/tiny.yaml")
    assert config_of(shop, "second")["trainer"]["max_steps"] == -1


def test_the_last_overlay_is_where_a_key_was_written(shop: Workshop) -> None:
    part = shop.folder / "parts/train.yaml"
    sizes = "lr: 0.05, sizes: {image_size: 32, patch_size: 16}"
    shop.replace("lr: 0.05", sizes, "parts/train.yaml")
    shop.replace("second: {", "second: {model.sizes: {image_size: 64}, ", "scales/tiny.yaml")
    plan = shop.plan(overrides=["second.trainer.callbacks=[]"])
    origin = next(run for run in plan.runs.values() if run.stage.name == "second").resolved.origin
    assert origin("model.sizes.image_size") == f"{shop.folder}/scales/tiny.yaml:3"
    assert origin("model.sizes.patch_size") == f"{part}:3"
    assert origin("trainer.callbacks.0.reference") == "--set second.trainer.callbacks=[]"
    line = shop.line_of("model.checkpoint: first")
    assert origin("model.checkpoint") == f"{shop.path}:{line}"


def test_unknown_sections_in_files(shop: Workshop) -> None:
    shop.replace("second:", "second: {trianer.max_steps: 3}\nthird:", "scales/tiny.yaml")
    with pytest.raises(ConfigError, match=r"tiny\.yaml:3: unknown key `trianer\.max_steps`"):
        shop.plan()
    (shop.folder / "machines/odd.yaml").write_text("trainers: {devices: 1}\n")
    with pytest.raises(ConfigError, match=r"unknown scale|unknown key"):
        shop.plan(machine="odd")
    (shop.folder / "parts/evaluate.yaml").write_text("- a list\n")
    with pytest.raises(ConfigError, match="write a stage config"):
        shop.plan(scale="small")


def test_planning_needs_no_torch_and_under_two_seconds() -> None:
    code = (
        "import sys; from vilau.cli import main;"
        f"main(['plan', {str(STUDIES / 'toy.yaml')!r}, '--seeds', '0', '1', '2']);"
        "heavy = {'torch', 'lightning', 'numpy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    started_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert "18 stage runs, 18 different" in done.stdout
    # Two seconds is the promise; a busy machine gets a little more.
    assert time.perf_counter() - started_s < 5


def test_options_are_plain() -> None:
    assert Options().machine == "cpu"
