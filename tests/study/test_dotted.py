from typing import Any

import pytest

from vilau.errors import ConfigError
from vilau.study.dotted import dotted_keys, merged, plain_key, set_dotted


def config() -> dict[str, Any]:
    return {
        "model": {"class_path": "a.Tower", "init_args": {"sizes": {"depth": 4, "width": 8}}},
        "trainer": {
            "max_steps": 10,
            "callbacks": [
                {"class_path": "c.Usage"},
                {"class_path": "c.Fid", "init_args": {"num_images": 50_000}},
            ],
        },
    }


def test_a_key_enters_the_arguments_of_a_class() -> None:
    out = config()
    set_dotted(out, "model.contrastive_weight", 0.0)
    set_dotted(out, "model.sizes.depth", 2)
    assert out["model"]["init_args"] == {
        "sizes": {"depth": 2, "width": 8},
        "contrastive_weight": 0.0,
    }


def test_the_class_itself_can_be_changed() -> None:
    out = config()
    set_dotted(out, "model.class_path", "a.Other")
    assert out["model"] == {
        "class_path": "a.Other",
        "init_args": {"sizes": {"depth": 4, "width": 8}},
    }


def test_a_list_item_is_found_by_class_name_and_by_number() -> None:
    out = config()
    set_dotted(out, "trainer.callbacks.Fid.num_images", 8)
    set_dotted(out, "trainer.callbacks.0.every", 2)
    first, second = out["trainer"]["callbacks"]
    assert second["init_args"] == {"num_images": 8}
    assert first["init_args"] == {"every": 2}


def test_plus_appends() -> None:
    out = config()
    set_dotted(out, "trainer.callbacks+", {"class_path": "c.New"})
    set_dotted(out, "trainer.loggers+", ["a", "b"])
    assert [item["class_path"] for item in out["trainer"]["callbacks"]] == [
        "c.Usage",
        "c.Fid",
        "c.New",
    ]
    assert out["trainer"]["loggers"] == ["a", "b"]


def test_mappings_are_merged_and_lists_replaced() -> None:
    out = config()
    set_dotted(out, "model.sizes", {"depth": 1})
    set_dotted(out, "trainer.callbacks", [])
    assert out["model"]["init_args"]["sizes"] == {"depth": 1, "width": 8}
    assert out["trainer"]["callbacks"] == []


def test_another_class_drops_the_old_arguments() -> None:
    old = {"class_path": "a.A", "init_args": {"x": 1}}
    assert merged(old, {"class_path": "a.B"}) == {"class_path": "a.B"}
    assert merged(old, {"class_path": "a.A", "init_args": {"y": 2}})["init_args"] == {
        "x": 1,
        "y": 2,
    }


def test_overlays_are_copies() -> None:
    value = {"deep": [1]}
    out: dict[str, Any] = {}
    set_dotted(out, "a", value)
    out["a"]["deep"].append(2)
    assert value == {"deep": [1]}


def test_an_unknown_list_item_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"`trainer\.callbacks` has no item `Fidd`\. Did you mean `Fid`"
    ):
        set_dotted(config(), "trainer.callbacks.Fidd.num_images", 8)


def test_a_way_through_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.max_steps` holds 10, which has no keys"):
        set_dotted(config(), "trainer.max_steps.more", 8)
    with pytest.raises(ConfigError, match=r"`trainer\.max_steps\.more` cannot be set"):
        set_dotted(config(), "trainer.max_steps.more.yet", 8)


def test_plain_key() -> None:
    assert plain_key(("model", "init_args", "sizes", "depth")) == "model.sizes.depth"


def test_every_key_as_a_user_would_write_it() -> None:
    keys = list(dotted_keys(config()))
    assert {"model", "model.class_path", "model.sizes.depth", "trainer.max_steps"} <= set(keys)
    assert "trainer.callbacks.Fid.num_images" in keys
    twice = {"callbacks": [{"class_path": "c.Fid"}, {"class_path": "c.Fid"}, 3]}
    assert list(dotted_keys(twice, "trainer"))[1:] == [
        "trainer.callbacks.0", "trainer.callbacks.0.class_path",
        "trainer.callbacks.1", "trainer.callbacks.1.class_path", "trainer.callbacks.2",
    ]  # fmt: skip
    assert list(dotted_keys(3)) == list(dotted_keys(None)) == []
