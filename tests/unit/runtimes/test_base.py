from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantship.runtimes.base import greedy, is_onnx, open_runtime

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = [10, 20, 30]


def test_a_directory_is_onnx_when_it_holds_a_graph(
    tiny_model_dir: Path, tiny_onnx_dir: Path, tmp_path: Path
) -> None:
    assert is_onnx(tiny_onnx_dir)
    assert not is_onnx(tiny_model_dir)
    assert not is_onnx(tmp_path)


def test_a_directory_is_opened_on_the_runtime_that_serves_it(
    tiny_model_dir: Path, tiny_onnx_dir: Path
) -> None:
    assert open_runtime(tiny_model_dir).name == "torch"
    assert open_runtime(tiny_onnx_dir).name == "onnxruntime"


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_greedy_takes_the_likeliest_token_each_time(
    tiny_model_dir: Path, tiny_onnx_dir: Path, form: str
) -> None:
    runtime = open_runtime(tiny_model_dir if form == "torch" else tiny_onnx_dir)
    sequence = list(PROMPT)
    for _ in range(5):
        inputs = np.array([sequence])
        sequence.append(int(runtime.logits(inputs, np.ones_like(inputs))[0, -1].argmax()))
    new = sequence[len(PROMPT) :]
    assert greedy(runtime, PROMPT, 5) == new
    assert greedy(runtime, PROMPT, 1) == new[:1]


def test_greedy_ends_before_a_stop_token(tiny_model_dir: Path) -> None:
    runtime = open_runtime(tiny_model_dir)
    new = greedy(runtime, PROMPT, 6)
    first = new.index(new[-1])
    assert greedy(runtime, PROMPT, 6, frozenset([new[-1], 259])) == new[:first]
    assert greedy(runtime, PROMPT, 6, frozenset([new[0]])) == []
