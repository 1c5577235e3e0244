from __future__ import annotations

import ast
from itertools import chain

import pytest

from quantship.errors import DataError


def task(task_id: int = 601, **changes: object) -> dict[str, object]:
    return {
        "task_id": task_id,
        "text": "Write a function that doubles.",
        "code": "def double(x):\r\n  return 2 * x\r\n",
        "test_setup_code": "",
        "test_list": ["assert double(1) == 2", "assert double(2) == 4"],
        **changes,
    }


def test_the_user_gives_task_and_asserts_and_the_assistant_the_code(write_lines, read):
    [example] = read("mbpp", path=write_lines(task()))
    user, assistant = (message["content"] for message in example.messages)
    assert user == (
        "Write a function that doubles.\nYour code should pass these tests:\n\n"
        "assert double(1) == 2\nassert double(2) == 4"
    )
    assert assistant == "def double(x):\n  return 2 * x\n"


def test_setup_code_comes_before_the_asserts(write_lines, read):
    [example] = read("mbpp", path=write_lines(task(test_setup_code="import math")))
    assert "\n\nimport math\nassert double(1) == 2" in example.messages[0]["content"]


def test_the_splits_are_upstreams_and_cover_every_task_once(write_lines, read):
    path = write_lines(*(task(task_id) for task_id in range(1, 975)))
    lines = {
        split: [int(example.origin.rpartition(":")[2]) for example in read("mbpp", path=path, **s)]
        for split, s in {
            "prompt": {"split": "prompt"},
            "test": {"split": "test"},
            "validation": {"split": "validation"},
            "train": {},
        }.items()
    }
    assert {split: (found[0], found[-1]) for split, found in lines.items()} == {
        "prompt": (1, 10),
        "test": (11, 510),
        "validation": (511, 600),
        "train": (601, 974),
    }
    assert sorted(chain.from_iterable(lines.values())) == list(range(1, 975))


def test_limit_counts_tasks_of_the_split(write_lines, read):
    path = write_lines(task(1), task(601), task(602), task(603))
    origins = [example.origin for example in read("mbpp", path=path, limit=2)]
    assert origins == [f"{path}:2", f"{path}:3"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task_id": True}, "'task_id' must be a whole number, not true or false"),
        ({"task_id": 0}, "task_id 0 is not one of MBPP's 1 to 974"),
        ({"test_list": "assert True"}, "'test_list' must be a list, not text"),
        ({"test_list": ["assert True", 1.5]}, "'test_list[1]' must be text, not a number"),
        ({"test_list": []}, "'test_list' is empty"),
        ({"code": ""}, "'code' is blank"),
        ({"text": "\n"}, "'text' is blank"),
    ],
)
def test_a_malformed_record_is_named_whatever_its_split(write_lines, read, changes, says):
    path = write_lines(task(601), task(**{"task_id": 5, **changes}))
    with pytest.raises(DataError) as caught:
        read("mbpp", path=path)
    assert caught.value.origin.startswith(f"{path}:2")
    assert says in str(caught.value)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_the_whole_set_is_read_and_its_code_compiles(shared_data, read):
    path = shared_data / "mbpp" / "mbpp.jsonl"
    counts = {"prompt": 10, "test": 500, "validation": 90, "train": 374}
    for split, count in counts.items():
        examples = read("mbpp", path=path, split=split)
        assert len(examples) == count
        for example in examples:
            code = example.messages[1]["content"]
            assert "\r" not in code
            ast.parse(code)
