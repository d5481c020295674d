"""Each mistake in a study file is one sentence with file, line, key and what to write."""

import pytest

from tests.study.conftest import Workshop
from vilau.errors import ConfigError
from vilau.study.load import load_study


def test_the_toy_study_is_read(shop: Workshop) -> None:
    study = load_study(shop.path)
    assert study.name == "toy"
    assert study.question == "Does noise in the first stage hurt the second?  A toy, no paper."
    assert list(study.stages) == ["first", "second", "evaluate"]
    assert study.stages["evaluate"].command == "test"
    assert study.stages["second"].inputs == {"model.checkpoint": "first"}
    assert study.stages["first"].gates[0].metric == "val/accuracy"
    assert study.variants["noisy"].label == "Noisy"
    assert study.columns["Loss"].higher_is_better is False
    assert study.columns["Loss"].format == ".2f"
    assert study.baselines["ceiling"] == {"Top-1": 1.0}
    assert study.paper["noisy"] == {"Top-1": 0.8}
    assert study.claims[0].holds.names() == ["quiet.Top-1", "noisy.Top-1"]


CASES = [
    ("variants:", "varaints:", "varaints", r"unknown key `varaints`\. Did you mean `variants`\?"),
    ("study: toy\n", "", "scale: tiny", r"the file lacks the key `study`"),
    ("study: toy", "study: 3 toys", "study:", r"`3 toys` is no name; use letters, digits and _"),
    ("seeds: [0]", "seeds: [0, one]", "seeds:", r"`seeds\.1` holds 'one'; write a whole number"),
    ("seeds: [0]", "seeds: [0, 1.5]", "seeds:", r"`seeds\.1` holds 1\.5; write a whole number"),
    ("seeds: [0]", "seeds: [1, 1]", "seeds:", r"`seeds` holds \[1, 1\]; name each seed once"),
    ("seeds: [0]", "seeds: []", "seeds:", r"`seeds` holds \[\]; name at least one seed, or leave the key out\."),
    ("seeds: [0]", "seeds: 3", "seeds:", r"`seeds` holds 3; write a list"),
    ("run: test", "run: tset", "run: tset", r"run` holds `tset`; write one of `fit`, `validate`"),
    ("    gate:", "    gates:", "gates:", r"unknown key `gates`\. Did you mean `gate`\?"),
    ('">= 0.5"', "0.5", "gate:", r'val/accuracy` holds 0\.5; write e\.g\. ">= 0\.9"'),
    ('">= 0.5"', '"about 0.5"', "gate:", r"holds 'about 0\.5'; write e\.g\. \">= 0\.9\""),
    ('">= 0.5"', '"- 0.5"', "gate:", r'write e\.g\. ">= 0\.9"'),
    ("{model.checkpoint: first}", "{model.checkpoint: evaluate}", "checkpoint: evaluate",
     r"`evaluate` is not an earlier stage\. Earlier stages: `first`"),
    ("{model.checkpoint: first}", "{model.checkpoint: frist}", "checkpoint: frist",
     r"there is no stage `frist`\. Did you mean `first`\?"),
    ("{model.checkpoint: first}", "{modle.checkpoint: first}", "modle",
     r"unknown key `modle\.checkpoint`\. Did you mean `model`\?"),
    ("set: {model.lr: 1e-2}", "set: {seed_everything: 3}", "seed_everything",
     r"seeds belong to the study; write `seeds: \[0, 1\]`"),
    ("set: {first.model.noise: 0.0}", "set: {frist.model.noise: 0.0}", "frist",
     r"`frist\.model\.noise` must start with a stage's name\. Did you mean `first`\?"),
    ("set: {first.model.noise: 0.0}", "set: {first.modle.noise: 0.0}", "modle",
     r"unknown key `modle\.noise`\. Did you mean `model`\?"),
    ("{label: Quiet, ", "{lable: Quiet, ", "lable", r"unknown key `lable`\. Did you mean `label`\?"),
    ("Val: first/val/accuracy", "Val: frist/val/accuracy", "Val:",
     r"holds `frist/val/accuracy`; write stage/metric\. Did you mean `first`\?"),
    ("Val: first/val/accuracy", "Val: first", "Val:", r"holds `first`; write stage/metric"),
    ("format: .2f", "format: two", "format:", r"format` holds `two`; write e\.g\. \.2f or \.1%"),
    ("higher_is_better: false", "higher_is_better: 0", "Loss:", r"holds 0; write true or false"),
    ("quiet: {Top-1: 0.9}", "quite: {Top-1: 0.9}", "quite:",
     r"unknown variant `quite`\. Did you mean `quiet`\?"),
    ("quiet: {Top-1: 0.9}", "quiet: {Top1: 0.9}", "Top1",
     r"unknown column `Top1`\. Did you mean `Top-1`\?"),
    ("quiet: {Top-1: 0.9}", "quiet: {Top-1: high}", ": high", r"holds 'high'; write a number"),
    ("ceiling: {Top-1: 1.0}", "quiet: {Top-1: 1.0}", "baselines",
     r"`quiet` is a variant; name it otherwise"),
    ("holds: quiet.Top-1 > noisy.Top-1}", "holds: quiet.Top1 > noisy.Top-1}", "Top1",
     r"the claim .* names `quiet\.Top1`, which is not known\. Did you mean `quiet\.Top-1`\?"),
    ("holds: quiet.Top-1 > noisy.Top-1}", "hold: quiet.Top-1 > noisy.Top-1}", "hold:",
     r"unknown key `hold`\. Did you mean `holds`\?"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "place", "message"), CASES, ids=[c[3][:40] for c in CASES])
def test_a_mistake_is_one_sentence(
    shop: Workshop, old: str, new: str, place: str, message: str
) -> None:
    shop.replace(old, new)
    with pytest.raises(ConfigError, match=message) as caught:
        load_study(shop.path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{shop.path}:{shop.line_of(place)}: ") or place == "baselines"


def test_an_input_must_come_from_training(shop: Workshop) -> None:
    shop.replace("    config: [parts/train.yaml]", "    run: test\n    config: [parts/train.yaml]")
    shop.replace("second:\n    run: fit\n", "second:\n")
    with pytest.raises(ConfigError, match="stage `second` trains nothing that could be used"):
        load_study(shop.path)


def test_variants_called_off_are_refused(shop: Workshop) -> None:
    shop.replace("  quiet: {label", "  off: {label")
    with pytest.raises(ConfigError, match="YAML reads the key `off` as False"):
        load_study(shop.path)
