from pathlib import Path

import pytest

from vilau.errors import ConfigError
from vilau.study.yaml_reader import leading_comment, parse_value, parse_yaml, read_yaml


def test_numbers_are_numbers() -> None:
    data = parse_yaml("a: 1e-4\nb: 1.5E3\nc: 50_000\nd: 1.0\ne: 1e4x", name="x.yaml").data
    assert data == {"a": 1e-4, "b": 1500.0, "c": 50_000, "d": 1.0, "e": "1e4x"}


@pytest.mark.parametrize(("key", "read"), [("off", "False"), ("on", "True"), ("No", "False")])
def test_a_key_that_yaml_reads_as_boolean_is_refused(key: str, read: str) -> None:
    text = f"variants:\n  first: 1\n  {key}: 2\n"
    message = rf"^x\.yaml:3: YAML reads the key `{key}` as {read}; rename it or put it in quotes\.$"
    with pytest.raises(ConfigError, match=message):
        parse_yaml(text, name="x.yaml")
    assert parse_yaml(text.replace(key, f'"{key}"'), name="x.yaml").data["variants"][key] == 2


def test_a_duplicate_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml:4: the key `a` stands twice; keep one"):
        parse_yaml("a: 1\nb:\n  a: 2\na: 3\n", name="x.yaml")


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml:1: YAML reads the key `~` as empty"):
        parse_yaml("~: 1\n", name="x.yaml")


def test_a_mapping_as_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="a key must be a word"):
        parse_yaml("? {a: 1}\n: 2\n", name="x.yaml")


def test_bad_yaml_names_its_line() -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml:2: not valid YAML: "):
        parse_yaml("a: [1, 2\nb: 3\n", name="x.yaml")


def test_python_objects_are_not_built() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("a: !!python/object/apply:os.getcwd []\n", name="x.yaml")


def test_lines_of_nested_values() -> None:
    file = parse_yaml("a:\n  b:\n    - 1\n    - c: 2\n", name="x.yaml")
    assert file.where(("a", "b", 1, "c")) == "x.yaml:4"
    assert file.where(("a", "b", 1, "unknown")) == "x.yaml:4"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope\.yaml: there is no such study; check the path"):
        read_yaml(tmp_path / "nope.yaml", what="study")
    with pytest.raises(ConfigError, match="is a folder; name a YAML study in it"):
        read_yaml(tmp_path, what="study")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "image.png")


def test_values_of_the_command_line() -> None:
    assert parse_value("0.5") == 0.5
    assert parse_value("1e-4") == 1e-4
    assert parse_value("[1, 2]") == [1, 2]
    assert parse_value("null") is None


def test_leading_comment() -> None:
    text = "# Does it help?   VILA-U,\n# Table 6.\n#\n# usage\nstudy: x\n"
    assert leading_comment(text) == "Does it help?  VILA-U, Table 6."
    assert leading_comment("study: x\n") == ""
