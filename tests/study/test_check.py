"""Every stage is parsed and built before anything is trained."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.study import toys
from tests.study.conftest import Workshop
from vilau.errors import ConfigError, DataError
from vilau.study.check import Checker, check_plan
from vilau.study.explain import placed
from vilau.study.load import load_study
from vilau.study.plan import Options, make_plan


def check(shop: Workshop, **options: object) -> list[str]:
    lines: list[str] = []
    check_plan(shop.plan(**options), lines.append)
    return lines


def test_every_stage_is_built_once_on_the_meta_device(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[torch.device] = []
    init = toys.ToyTraining.__init__

    def watched(self: toys.ToyTraining, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)  # type: ignore[arg-type]
        built.append(self.net[0].weight.device)

    watched.__wrapped__ = init  # type: ignore[attr-defined]
    monkeypatch.setattr(toys.ToyTraining, "__init__", watched)
    lines = check(shop, seeds=[0, 1, 2])
    assert len(lines) == 6  # one seed stands for all
    assert {device.type for device in built} == {"meta"}
    assert re.search(r"✓ first · Quiet.* 58 parameters", lines[0])


def test_a_later_stage_sees_what_an_earlier_one_exports(shop: Workshop) -> None:
    with pytest.raises(Exception, match="^second · Quiet: .* has width 8, not 9"):
        check(shop, overrides=["second.model.width=9"])


def test_the_line_that_is_wrong_is_named(shop: Workshop) -> None:
    shop.replace("set: {first.model.noise: 1.5}", "set: {first.model.nose: 1.5}")
    place = f"{shop.path}:{shop.line_of('model.nose')}"
    message = (
        rf"^first · Noisy: {re.escape(place)}: unknown key `model\.nose`: .*Did you mean `noise`"
    )
    with pytest.raises(ConfigError, match=message):
        check(shop)


def test_a_wrong_scale_file_is_named(shop: Workshop) -> None:
    shop.replace("trainer.max_steps: 16", "trainer.max_step: 16", "scales/tiny.yaml")
    with pytest.raises(ConfigError, match=r"tiny\.yaml:3: unknown key `trainer\.max_step`"):
        check(shop)


def test_a_wrong_part_is_named(shop: Workshop) -> None:
    shop.replace("width: 8", "width: wide", "parts/train.yaml")
    with pytest.raises(
        ConfigError, match=r"train\.yaml:3: `model\.width` holds `wide`; write a whole"
    ):
        check(shop)


def test_the_command_line_is_named(shop: Workshop) -> None:
    with pytest.raises(
        ConfigError, match=r"--set second\.model\.lr=fast: `model\.lr` holds `fast`"
    ):
        check(shop, overrides=["second.model.lr=fast"])


def test_a_constructors_own_sentence_is_kept(shop: Workshop) -> None:
    shop.replace("set: {first.model.noise: 0.0}", "set: {}")
    shop.replace("set: {first.model.noise: 1.5}", "set: {}")
    with pytest.raises(
        ConfigError,
        match=r"^first · all variants: --set first\.model\.sizes\.image_size=250: model\.sizes\.image_size is 250",
    ):
        check(shop, overrides=["first.model.sizes.image_size=250"])


def test_a_constructors_own_sentence_is_told_with_its_line(shop: Workshop) -> None:
    shop.replace("lr: 0.05", "lr: 0.05, sizes: {image_size: 250}", "parts/train.yaml")
    place = rf"{shop.folder}/parts/train\.yaml:3"
    with pytest.raises(ConfigError, match=rf"^first · Quiet: {place}: model\.sizes\.image_size is"):
        check(shop)
    shop.replace(
        "first: {", "first: {model.lr: 6.0, model.sizes: {image_size: 32}, ", "scales/tiny.yaml"
    )
    with pytest.raises(ConfigError, match=r"^first · Quiet: \S+tiny\.yaml:2: model\.lr is 6\.0;"):
        check(shop)


def test_what_configure_model_refuses_is_told_with_its_line(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: toys.ToyTraining) -> None:
        raise ConfigError("trainer.max_steps is 24; write 25.")

    monkeypatch.setattr(toys.ToyTraining, "configure_model", refuse)
    with pytest.raises(
        ConfigError, match=r"^first · Quiet: \S+tiny\.yaml:2: trainer\.max_steps is"
    ):
        check(shop)


def test_a_misspelt_input_is_the_studys(shop: Workshop) -> None:
    shop.replace("{model.checkpoint: first}", "{model.checkpiont: first}")
    place = f"{shop.path}:{shop.line_of('checkpiont')}"
    message = (
        rf"^second · Quiet: {re.escape(place)}: unknown key `model\.checkpiont`: .*`checkpoint`"
    )
    with pytest.raises(ConfigError, match=message):
        check(shop)


@pytest.mark.parametrize(
    ("sentence", "where"),
    [
        ("model.width is 0.", "at model.width"),
        ("quantizer.depth is 0.", "at model.quantizer.depth"),
        ("`quantizer.depth` holds 0.", "at model.quantizer.depth"),
        ("quantizer.decay is 2.", "at model.quantizer"),
        ("data.seed is -1.", "at data"),
        ("Grid.num_images is 0.", "at trainer.callbacks.Grid.num_images"),
        ("data.sources[1].weight is 0.", "at data.sources.1.weight"),
        ("data.world.level is 'moon'.", "at data.sources.0.data.world.level"),
        # Two optimizers, no such key, a file, no key at all.
        ("optimizer.kind is x.", ""),
        ("start.text is x.", ""),
        ("runs/model.width is damaged.", ""),
        ("toy.yaml:3: model.width is 0.", ""),
        ("Prompts are missing.", ""),
        ("width is 0.", ""),
    ],
)
def test_the_key_a_sentence_begins_with(sentence: str, where: str) -> None:
    config = {
        "model": {"class_path": "a.B", "init_args": {
            "width": 0, "quantizer": {"depth": 0}, "optimizer": {"kind": "x"}, "second": {"optimizer": {"kind": "x"}},
        }},
        "data": {"class_path": "a.C", "init_args": {"sources": [
            {"weight": 1, "data": {"class_path": "a.D", "init_args": {"world": {"level": "moon"}}}}, {"weight": 0},
        ]}},
        "trainer": {"callbacks": [{"class_path": "a.Grid", "init_args": {"num_images": 0}}]},
    }  # fmt: skip
    told = placed(ConfigError(sentence), config, lambda key: f"at {key}")
    assert str(told) == (f"{where}: {sentence}" if where else sentence)
    assert str(placed(DataError(sentence), config, lambda key: "at")) == sentence


QUICKSTART = Path(__file__).parents[2] / "experiments/quickstart.yaml"


def check_quickstart(*overrides: str, until: str = "tower") -> list[str]:
    options = Options(overrides=overrides, until=until)
    lines: list[str] = []
    check_plan(make_plan(load_study(QUICKSTART), options), lines.append)
    return lines


def test_a_level_that_the_world_lacks() -> None:
    # In one piece, as scales write it, and alone.
    for text in ("data.world={level: moon}", "data.world.level=moon"):
        with pytest.raises(ConfigError) as caught:
            check_quickstart(f"tower.{text}")
        assert str(caught.value) == (
            f"tower · VILA-U tiny: --set tower.{text}: data.world.level is 'moon'; write one of easy, base, skew, hard."
        )


def test_images_of_another_size_than_the_tower_reads() -> None:
    told = r"data\.image_size is 72, but the visual tokenizer reads images of 64 x 64 pixels; write 64\."
    with pytest.raises(
        ConfigError, match=rf"^tower · .*: --set tower\.data\.image_size=72: {told}"
    ):
        check_quickstart("tower.data.image_size=72")
    with pytest.raises(ConfigError, match=rf"^pretrain · .*: --set pretrain\.data.*=72: {told}"):
        check_quickstart("pretrain.data.image_size=72", until="pretrain")


def test_an_evaluation_may_compare_with_pictures_of_another_size() -> None:
    lines = check_quickstart("evaluate.data.image_size=72", until="evaluate")
    assert len(lines) == 4


def test_a_module_of_a_users_may_resize_its_images(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.ToyTraining, "spec", SimpleNamespace(image_size=32), raising=False)
    shop.replace("global_batch_size: 8", "image_size: 65", "parts/train.yaml")
    assert len(check(shop)) == 6
    # The same of one of the kit's is refused.
    monkeypatch.setattr(toys.ToyTraining, "__module__", "vilau.training.toy")
    with pytest.raises(ConfigError, match=r"data\.image_size is 65, but .* 32 x 32 pixels"):
        check(shop)


def test_callbacks_are_built_too(shop: Workshop) -> None:
    grid = "{class_path: vilau.callbacks.image_grid.ImageGrid, init_args: {num_images: 0}}"
    with pytest.raises(
        ConfigError, match=r"^first · .*: --set .*: ImageGrid\.num_images is 0; write 1"
    ):
        check(shop, overrides=[f"first.trainer.callbacks=[{grid}]"])


def test_a_fault_of_the_code_says_where(shop: Workshop) -> None:
    with pytest.raises(ValueError, match="the constructor itself is broken") as caught:
        check(shop, overrides=["first.model.lr=4.5"])
    assert caught.value.__notes__ == ["while building first · Quiet"]


def test_a_product_that_is_not_exported(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(toys.ToyTraining, "export")
    message = r"second · Quiet uses the product of stage `first`, but ToyTraining has no `export`"
    with pytest.raises(ConfigError, match=message):
        check(shop)


def test_a_machine_without_its_devices_can_still_be_checked(shop: Workshop) -> None:
    (shop.folder / "machines/eight.yaml").write_text(
        "trainer:\n  accelerator: gpu\n  devices: 8\n  strategy:\n"
        "    class_path: lightning.pytorch.strategies.ModelParallelStrategy\n"
    )
    assert len(check(shop, machine="eight")) == 6


def test_nothing_is_left_behind(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(shop)
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]


def test_what_another_study_built_is_not_built_again(shop: Workshop, tmp_path: Path) -> None:
    checker, lines = Checker(tmp_path), list[str]()
    checker.check(shop.plan(), lines.append)
    again: list[str] = []
    checker.check(shop.plan(), again.append)
    assert len(again) == len(lines)
    assert all(line.endswith(f"  as in {shop.plan().study.name}") for line in again)
    parameters = [re.sub(r"  \d+\.\d s$", "", line) for line in lines]
    assert [line.rsplit("  as in", 1)[0] for line in again] == parameters
    # A stage that differs is built, on the products of those that do not.
    changed: list[str] = []
    checker.check(shop.plan(overrides=["second.model.noise=0.25"]), changed.append)
    assert {"as in" in line for line in changed} == {True, False}
