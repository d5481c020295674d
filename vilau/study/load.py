"""Read a study and everything it names, and lay the overlays of a stage over one another.

Later wins: part(s) -> ``scales/<scale>.yaml`` -> the study's own ``scales`` -> the stage's ``set``
-> the variant's ``set`` -> ``--set``. A machine lies over ``trainer`` and comes last of all, when a
run is written down (see ``plan``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vilau.errors import ConfigError
from vilau.study.dotted import dotted_keys, merged, plain_key, set_dotted
from vilau.study.parse import check_section, machine_file, overlay_file, parse_study, stage_setting
from vilau.study.schema import Setting, Stage, Study, Variant
from vilau.study.suggest import did_you_mean
from vilau.study.yaml_reader import YamlFile, parse_value, read_yaml


@dataclass(frozen=True)
class StageConfig:
    """A stage's config after all overlays, and where each of its settings was written."""

    config: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    """Dotted key as a user writes it -> ``file:line`` of the overlay that had the last word."""
    commanded: tuple[Setting, ...] = ()
    """What the command line set: nothing is laid over it, not even by the machine."""

    def fed(self, places: Mapping[str, str]) -> StageConfig:
        """Return the config with the places of the keys that take in a product: dotted key -> ``file:line``."""
        return replace(self, origins={**self.origins, **places})

    def origin(self, key: str) -> str:
        """Return where ``key`` or its nearest parent was set, or an empty text."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return ""


def load_study(path: str | Path) -> Study:
    """Read ``experiments/x.yaml``.

    Raises:
        ConfigError: one sentence with file, line, key and what to write instead.
    """
    return parse_study(read_yaml(path, what="study"), Path(path))


def load_scale(study: Study, name: str) -> dict[str, tuple[Setting, ...]]:
    """Return the settings per stage of a scale: the file's, then the study's own.

    Stages the study lacks are ignored: one scale file serves many studies.
    """
    path = study.path.parent / "scales" / f"{name}.yaml"
    known = [*_names(path.parent), *study.scales]
    if name not in known:
        raise ConfigError(f"there is no scale `{name}`.{did_you_mean(name, known)}")
    of_file = overlay_file(read_yaml(path, what="scale")) if path.exists() else {}
    own = study.scales.get(name, {})
    for stage in own:
        if stage not in study.stages:
            where = study.source.where(("scales", name, stage))
            raise ConfigError(
                f"{where}: there is no stage `{stage}`.{did_you_mean(stage, study.stages)}"
            )
    _check_scale_stages(study)
    _check_scale_names(study, known)
    return {
        name: (*of_file.get(stage.scale, ()), *own.get(name, ()))
        for name, stage in study.stages.items()
    }


def _check_scale_names(study: Study, known: Sequence[str]) -> None:
    """Refuse a scale that is not there, wherever the study names one for what differs at it."""
    named: list[tuple[str, tuple[str | int, ...]]] = [
        (scale, ("variants", variant.name, "scales", scale))
        for variant in study.variants.values()
        for scale in variant.scales
    ]
    named += [(scale, ("table", "scales", scale)) for scale in study.tables]
    named += [
        (scale, ("claims", number, "scales"))
        for number, claim in enumerate(study.claims)
        for scale in claim.scales
    ]
    for stage in study.stages.values():
        named += [(scale, ("stages", stage.name, "scales")) for scale in stage.scales]
        named += [
            (scale, ("stages", stage.name, "gate", "scales"))
            for gate in stage.gates
            for scale in gate.scales
        ]
    for scale, place in named:
        if scale not in known:
            raise ConfigError(
                f"{study.source.where(place)}: there is no scale `{scale}`.{did_you_mean(scale, known)}"
            )


def _check_scale_stages(study: Study) -> None:
    """Refuse a stage that takes its sizes from a stage which no scale knows."""
    if all(stage.scale in study.stages for stage in study.stages.values()):
        return
    files = (study.path.parent / "scales").glob("*.yaml")
    known = {name for file in files for name in overlay_file(read_yaml(file, what="scale"))}
    for stage in study.stages.values():
        if stage.scale not in {*known, *study.stages}:
            where = study.source.where(("stages", stage.name, "scale"))
            raise ConfigError(
                f"{where}: no scale has a stage `{stage.scale}`.{did_you_mean(stage.scale, known)}"
            )


def load_machine(study: Study, name: str) -> dict[str, Any]:
    """Return what ``machines/<name>.yaml`` lays over every stage's ``trainer``."""
    path = study.path.parent / "machines" / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(f"there is no machine `{name}`.{did_you_mean(name, _names(path.parent))}")
    return machine_file(read_yaml(path, what="machine"))


def parse_overrides(study: Study, texts: Iterable[str]) -> list[tuple[str, Setting]]:
    """Read ``--set stage.key=value`` arguments.

    Raises:
        ConfigError: no ``=``, an unknown stage, or a key that no stage's config can have.
    """
    out = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write stage.key=value.")
        out.append(stage_setting(key, parse_value(value), study.stages, f"--set {text}"))
    return out


def stage_config(
    study: Study,
    stage: Stage,
    variant: Variant,
    *,
    scale: Mapping[str, Sequence[Setting]],
    scale_name: str,
    overrides: Sequence[tuple[str, Setting]] = (),
) -> StageConfig:
    """Lay the overlays of one stage of one variant over one another.

    Raises:
        ConfigError: a part is missing or is no stage config, an overlay does not fit it, or a number of steps
            makes no sense.
    """
    config: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in stage.configs:
        part = _read_part(study, stage, name)
        config = merged(config, part.data)
        for path in part.lines:
            origins[plain_key(path)] = part.where(path)
    commanded = tuple(setting for name, setting in overrides if name == stage.name)
    for setting in (
        *scale.get(stage.name, ()),
        *stage.settings,
        *variant.of(stage.name, scale_name),
        *commanded,
    ):
        try:
            set_dotted(config, setting.key, setting.value)
        except ConfigError as error:
            raise ConfigError(f"{setting.origin}: {stage.name}: {error}") from None
        _note(origins, setting)
    found = StageConfig(config, origins, commanded)
    _check_steps(found, stage.name)
    return found


def _note(origins: dict[str, str], setting: Setting) -> None:
    """Note where an overlay was written, for its key and for every key in its value."""
    key = setting.key.rstrip("+")
    if key == setting.key and not isinstance(setting.value, dict):
        # What stood below was replaced.
        for old in [old for old in origins if old.startswith(f"{key}.")]:
            del origins[old]
    origins.update(dict.fromkeys((key, *dotted_keys(setting.value, key)), setting.origin))


def _check_steps(found: StageConfig, stage: str) -> None:
    """Refuse a number of steps below 1; -1 is Lightning's word for no end."""
    trainer = found.config.get("trainer")
    steps = trainer.get("max_steps") if isinstance(trainer, dict) else None
    if isinstance(steps, (int, float)) and steps < 1 and steps != -1:
        raise ConfigError(
            f"{found.origin('trainer.max_steps')}: {stage}: `trainer.max_steps` holds {steps!r}; write 1 or more."
        )


def _read_part(study: Study, stage: Stage, name: str) -> YamlFile:
    path = study.path.parent / name
    where = study.source.where(("stages", stage.name, "config"))
    if not path.exists():
        found = sorted(
            str(p.relative_to(study.path.parent)) for p in study.path.parent.glob("parts/*.yaml")
        )
        raise ConfigError(f"{where}: there is no file `{name}`.{did_you_mean(name, found)}")
    part = read_yaml(path, what="part")
    if not isinstance(part.data, dict):
        raise ConfigError(
            f"{part.name} holds {part.data!r}; write a stage config (model, data, …)."
        )
    for key in part.data:
        check_section(str(key), part.where((key,)))
    return part


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))
