import pytest

from vilau.errors import ConfigError
from vilau.study.expressions import parse

KNOWN = ["a.VQA", "b.VQA", "a.Top-1", "a.Top", "b.My column", "a.VQA v2"]
VALUES = {
    "a.VQA": 0.7,
    "b.VQA": 0.5,
    "a.Top-1": 3.0,
    "a.Top": 1.0,
    "b.My column": 2.0,
    "a.VQA v2": 9.0,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.VQA > b.VQA", 1),
        ("a.VQA > b.VQA + 0.1", 1),
        ("a.VQA > b.VQA + 0.3", 0),
        ("a.VQA - b.VQA >= 0.3 or a.Top == 1", 1),
        ("a.VQA < b.VQA and a.Top == 1", 0),
        ("b.VQA < a.VQA <= 1", 1),
        ("a.Top-1", 3),
        ("a.Top -1", 0),
        ("a.Top - 1", 0),
        ("b.My column * 2 + 1", 5),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4 / 2", 10),
        ("-a.Top + 2", 1),
        ("8 - 3 - 2", 3),
        ("1e-1 * 10", 1),
        ("a.VQA != b.VQA", 1),
        ("a.VQA v2", 9),
    ],
)
def test_value(text: str, value: float) -> None:
    assert parse(text, KNOWN).value(VALUES) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("a.VQA > b.VQA + 0.1", 0.1),
        ("b.VQA >= a.VQA", -0.2),
        ("b.VQA < a.VQA < 1", 0.2),
        ("a.VQA > b.VQA and a.Top < 1.1", 0.1),
        ("a.VQA > b.VQA or a.Top < 1.1", 0.2),
        ("a.VQA == b.VQA", None),
        ("a.VQA > b.VQA and a.Top != 1", None),
        ("a.VQA", None),
    ],
)
def test_margin(text: str, margin: float | None) -> None:
    found = parse(text, KNOWN).margin(VALUES)
    assert found is None if margin is None else found == pytest.approx(margin)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a > b - (c - 0.1)", "a > b - (c - 0.1)"),
        ("a > b - (c + 0.1)", "a > b - (c + 0.1)"),
        ("a > (b - c) - 0.1", "a > b - c - 0.1"),
        ("a > b + (c - 0.1)", "a > b + c - 0.1"),
        ("b / (c * 2)", "b / (c * 2)"),
        ("b * 2 / c", "b * 2 / c"),
        ("-(a + b)", "-(a + b)"),
        ("-a + b", "-a + b"),
        ("(a > b or b > c) and c > a", "(a > b or b > c) and c > a"),
        ("a > b or b > c and c > a", "a > b or b > c and c > a"),
        ("min(a + b, c) * (a - b)", "min(a + b, c) * (a - b)"),
    ],
)
def test_brackets_are_shown_where_they_matter(text: str, shown: str) -> None:
    names = {"a": 0.7, "b": 0.4, "c": 0.9}
    expression = parse(text, names)
    assert expression.show(str) == shown
    assert parse(shown, names).value(names) == expression.value(names)


def test_names_and_numbers_shown() -> None:
    expression = parse("a.VQA > (b.VQA + 0.1) * 2 and a.Top-1 < 4", KNOWN)
    assert expression.names() == ["a.VQA", "b.VQA", "a.Top-1"]
    shown = expression.show(lambda name: f"{VALUES[name]:.1f}")
    assert shown == "0.7 > (0.5 + 0.1) * 2 and 3.0 < 4"


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(
        ConfigError, match=r"names `a\.VQB`, which is not known\. Did you mean `a\.VQA`"
    ):
        parse("a.VQB > 0.1", KNOWN)
    with pytest.raises(ConfigError, match=r"names `a\.VQA2`"):
        parse("a.VQA2 > 0.1", KNOWN)


@pytest.mark.parametrize("text", ["", "a.VQA >", "> 1", "(a.VQA", "a.VQA b.VQA", "1 +", "a.VQA )"])
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read at"):
        parse(text, KNOWN)


@pytest.mark.parametrize(
    "text", ["__import__('os')", "a.VQA.__class__", "[1]", "lambda: 1", "a.VQA % 2"]
)
def test_nothing_is_evaluated_as_python(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, KNOWN)


def test_division_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        parse("1 / 0", KNOWN).value({})
