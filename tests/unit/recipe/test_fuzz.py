"""Whatever a file holds, loading it ends in a recipe or a RecipeError."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantship.errors import RecipeError
from quantship.recipe import Recipe, check
from quantship.recipe.keys import walk

WORDS = sorted({part for key in walk(Recipe) for part in key.split(".")})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*WORDS, "extends", "profiles"]), inner, max_size=5)
    ),
    max_leaves=25,
)
TOP = ["extends", "profiles", *Recipe.model_fields]
VALID = """\
model: {tiny: {num_layers: 1}}
scheme: w8a8
data:
  train: [{adapter: builtin, limit: 3}]
  eval: [{adapter: builtin, split: eval}]
steps:
  - stage: finetune
  - {stage: qat, input: finetune, learning_rate: 1e-3}
  - {stage: quantize, name: ptq, scheme: [w8a8, w8a16], algorithm: [rtn, {kind: hqq, norm: 0.5}]}
  - {stage: export, input: [finetune, qat, ptq]}
profiles:
  smoke: {steps.qat.max_steps: 1, data: {max_length: 64}}
"""

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew by every example."""
    return tmp_path_factory.mktemp("fuzz") / "recipe.yaml"


def loads_or_complains(file: Path, content: bytes, overrides: tuple[str, ...] = ()) -> None:
    file.write_bytes(content)
    try:
        check(file, overrides=overrides)
    except RecipeError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert all(problem.message for problem in problems)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200))
@example(content=b"a: &a [*a]")
@example(content=b"? ? a\n: b\n")
@example(content=b"--- !<tag:yaml.org,2002:map> {a: 1}\n")
def test_any_bytes(file: Path, content: bytes) -> None:
    loads_or_complains(file, content)


@settings(max_examples=150, deadline=None)
@example(content=":")  # a key without a name
@given(content=st.text(alphabet="ab:-[]{}&*!|>'\"%@`#?,~<=. \n\t0123456789", max_size=60))
def test_any_text_of_yaml_signs(file: Path, content: str) -> None:
    loads_or_complains(file, content.encode())


@settings(max_examples=150, deadline=None)
@given(values=st.dictionaries(st.sampled_from(TOP), VALUES, max_size=6))
def test_any_values_at_known_keys(file: Path, values: dict[str, object]) -> None:
    loads_or_complains(file, json.dumps(values).encode())


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, len(VALID)),
    length=st.integers(0, 30),
    text=st.text(alphabet="aw8: -[]{}\n\t'", max_size=12),
)
def test_any_edit_of_a_valid_recipe(file: Path, start: int, length: int, text: str) -> None:
    loads_or_complains(file, (VALID[:start] + text + VALID[start + length :]).encode())


@settings(max_examples=150, deadline=None)
@given(key=st.lists(st.sampled_from([*WORDS, "0", "9", ""]), min_size=1, max_size=5), value=VALUES)
def test_any_setting(file: Path, key: list[str], value: object) -> None:
    loads_or_complains(file, VALID.encode(), (f"{'.'.join(key)}={json.dumps(value)}",))
