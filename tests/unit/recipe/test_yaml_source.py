from __future__ import annotations

from pathlib import Path

import pytest

from quantship.errors import Problem, RecipeError
from quantship.recipe.yaml_source import MAX_BYTES, locate, parse, plain, read

FILE = Path("r.yaml")


def values(text: str) -> object:
    problems: list[Problem] = []
    value = plain(parse(text, FILE, problems))
    assert not problems
    return value


def fatal(text: str) -> Problem:
    with pytest.raises(RecipeError) as caught:
        parse(text, FILE, [])
    (problem,) = caught.value.problems
    return problem


def refused(text: str) -> list[Problem]:
    problems: list[Problem] = []
    parse(text, FILE, problems)
    return problems


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("1e-5", 1e-5),
        ("2.0e-3", 2e-3),
        ("010", 10),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("~", None),
        ("=", "="),
        ("{no: 1, 5: a, null: b}", {"no": 1, "5": "a", "null": "b"}),
        ("[a, [1, 2.5], {b: }]", ["a", [1, 2.5], {"b": None}]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert values(text) == value
    assert type(values(text)) is type(value)


def test_every_value_knows_its_line() -> None:
    text = "a: 1\nb:\n  - x: 2\n  -\n    y: 3\nc:\n\n  d: 4\n"
    value = parse(text, FILE, [])
    lines = {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "x"): 3,
        ("b", 1): 5,
        ("b", 1, "y"): 5,
        ("c",): 6,
        ("c", "d"): 8,
    }
    assert {key: locate(value, key).line for key in lines} == lines


def test_a_missing_key_is_located_at_what_surrounds_it() -> None:
    value = parse("a:\n  b: [1]\n", FILE, [])
    assert locate(value, ("a", "b", 7)).line == 2
    assert locate(value, ("a", "c", "d")).line == 1


def test_aliases_are_copies() -> None:
    assert values("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_every_duplicate_key_is_named_with_both_lines() -> None:
    first, second = refused("a: 1\nb: {x: 1, x: 2}\na: 3\n")
    assert (first.line, first.key) == (2, "b.x")
    assert (second.line, second.key) == (3, "a")
    assert "line 1" in second.message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb:\n\tc: 2\n", 3, "tab"),
        ("a: 1\nb: c: d\n", 2, "second ': '"),
        ("a: 1\nb: @c\n", 2, "cannot start"),
        ("a: [1, 2\n", 2, "expected"),
        ("a: 1\n---\nb: 2\n", 2, "more than one document"),
        ("a: *b\n", 1, "undefined alias"),
        ("a: 1\nb: x\x07\n", 2, "control character"),
        ("a: &a [*a]\n", 1, "aliases"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    problem = fatal(text)
    assert (problem.file, problem.line) == (FILE, line)
    assert words in problem.message
    assert problem.remedy


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['true']",
        "!custom {a: 1}",
        "!!set {x}",
        "!!binary aGk=",
        ".inf",
        ".nan",
        "1e999",
        "!!int abc",
        "!!bool 7",
        '"\\ud83d\\ude00"',
        "9" * 5000,
    ],
)
def test_what_is_no_plain_finite_value_is_refused(value: str) -> None:
    (problem,) = refused(f"x: 1\na: {value}\n")
    assert (problem.line, problem.key) == (2, "a")


@pytest.mark.parametrize("text", ["<<: {a: 1}", "{[a]: 1}", "? {a: 1}\n: 2"])
def test_strange_keys_are_refused(text: str) -> None:
    assert len(refused(text)) == 1


def test_a_bomb_of_aliases_is_refused_before_it_expands() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert "too many values" in fatal("\n".join(lines)).message


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 200 + "1" + "}" * 200, "- " * 3000 + "1"])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "deep" in fatal(text).message


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", None, "empty"),
        (b"# only a comment\n", None, "empty"),
        (b"- a\n- b\n", 1, "a list"),
        (b"just text", 1, "a single value"),
        (b"a: 1\nb: \xff\xfe\n", 2, "UTF-8"),
        (b"a: 1\nb: \x00\x01\x02\n", 2, "binary"),
        (b"\x7fELF\x02\x01\x01\x00\x00", 1, "binary"),
        (b"# " + b"x" * MAX_BYTES, None, "too long"),
        (b"# " + "é".encode() * MAX_BYTES, None, "too long"),
    ],
)
def test_files_that_hold_no_recipe_are_refused(
    tmp_path: Path, content: bytes, line: int | None, words: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read(path, [])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (path, line)
    assert words in problem.message
    assert problem.remedy


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        read(tmp_path / "r.yaml", [])


def test_a_directory_is_refused_with_the_recipes_in_it(tmp_path: Path) -> None:
    (tmp_path / "inside.yaml").touch()
    with pytest.raises(RecipeError, match=r"is a directory\n.*inside\.yaml"):
        read(tmp_path, [])


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert plain(read(path, [])) == {"a": 1}
