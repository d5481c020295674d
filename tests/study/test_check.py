"""Every stage is parsed and built before anything is trained."""

import re
from pathlib import Path

import pytest
import torch

from tests.study import toys
from tests.study.conftest import Workshop
from vilau.errors import ConfigError
from vilau.study.check import Checker, check_plan


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
        ConfigError, match=r"^first · all variants: model\.sizes\.image_size is 250"
    ):
        check(shop, overrides=["first.model.sizes.image_size=250"])


def test_callbacks_are_built_too(shop: Workshop) -> None:
    grid = "{class_path: vilau.callbacks.image_grid.ImageGrid, init_args: {num_images: 0}}"
    with pytest.raises(ConfigError, match=r"^first · .*: ImageGrid\.num_images is 0; write 1"):
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
