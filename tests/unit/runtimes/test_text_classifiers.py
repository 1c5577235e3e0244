from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from encoders import save_encoder, sentences

import quantship
from quantship.artifact import Artifact
from quantship.data.collating import collate
from quantship.job import Job
from quantship.models import load_float, load_tokenizer
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.runtimes import measure
from quantship.runtimes.base import Classifier, classifies, open_classifier
from quantship.stages import head

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [text for text, _ in sentences(24, seed=0)]
CLASSES = ("good", "bad", "neither")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One encoder with a head: float, as a w8a8 checkpoint, and exported."""
    root = tmp_path_factory.mktemp("encoder")
    found = {name: root / name for name in ("torch", "torchao", "onnxruntime")}
    for path in found.values():
        path.mkdir()
    base = Artifact(save_encoder(root / "base", TEXTS), "model", "", {})
    settings = head.Settings(classes=CLASSES, seed=3)
    head.run(Job(settings, {"model": base}, found["torch"], root / "resume"))
    model: Any = load_float(found["torch"])
    convert(prepare_qat(model, SCHEMES["w8a8"]), found["torchao"])
    load_tokenizer(found["torch"]).save_pretrained(found["torchao"])
    quantship.export(found["torchao"], found["onnxruntime"], lowering="integer")
    return found


@pytest.fixture(scope="module")
def runtimes(directories: dict[str, Path]) -> dict[str, Classifier]:
    return {name: open_classifier(path, threads=1) for name, path in directories.items()}


def inputs_of(directory: Path, texts: list[str]) -> dict[str, NDArray[Any]]:
    tokenized = load_tokenizer(directory)(texts, return_token_type_ids=True)
    names = ("input_ids", "token_type_ids")
    rows = [
        {**{name: tokenized[name][index] for name in names}, "labels": 0}
        for index in range(len(texts))
    ]
    batch = collate(rows, pad_token_id=0)
    return {name: one.numpy() for name, one in batch.items() if name != "labels"}


def test_each_runtime_says_what_it_is(
    directories: dict[str, Path], runtimes: dict[str, Classifier]
) -> None:
    assert all(map(classifies, directories.values()))
    assert [runtime.name for runtime in runtimes.values()] == list(runtimes)
    assert all(isinstance(runtime, Classifier) for runtime in runtimes.values())


def test_all_runtimes_answer_alike(
    directories: dict[str, Path], runtimes: dict[str, Classifier]
) -> None:
    given = inputs_of(directories["torch"], TEXTS)
    plain, quantized, exported = (one.classify(given) for one in runtimes.values())
    assert plain.shape == quantized.shape == exported.shape == (len(TEXTS), len(CLASSES))
    assert np.abs(exported - quantized).max() < 1e-5
    assert np.abs(quantized - plain).max() < 0.02
    assert not np.array_equal(quantized, plain)
    assert np.ptp(plain, axis=0).min() > 1e-4  # it does read the texts


@pytest.mark.parametrize("name", ["torch", "torchao", "onnxruntime"])
def test_neighbours_and_padding_change_nothing(
    directories: dict[str, Path], runtimes: dict[str, Classifier], name: str
) -> None:
    together = runtimes[name].classify(inputs_of(directories["torch"], TEXTS))
    alone = [runtimes[name].classify(inputs_of(directories["torch"], [one])) for one in TEXTS]
    assert np.abs(np.concatenate(alone) - together).max() < 1e-5


def test_a_pass_reads_texts_as_long_as_a_prompt() -> None:
    seen: list[Mapping[str, NDArray[Any]]] = []

    class Noted:
        name = "torch"
        device = "cpu"

        def classify(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            seen.append(inputs)
            return np.zeros((2, 3), np.float32)

    sizes: dict[str, Any] = {"batch_size": 2, "prompt_tokens": 8, "decode_tokens": 3}
    for segments in (True, False):
        seen.clear()
        found = measure.measure_reader(
            Noted(),  # type: ignore[arg-type]
            **sizes,
            vocabulary=50,
            segments=segments,
            seed=0,
        )
        warmed_up = 1
        assert len(seen) == warmed_up + 3
        assert {one.shape for inputs in seen for one in inputs.values()} == {(2, 8)}
        assert ("token_type_ids" in seen[0]) == segments
        assert len(found["decode_s"]) == len(found["prefill_s"]) == 3
    assert not np.array_equal(seen[0]["input_ids"], seen[1]["input_ids"])


@pytest.mark.parametrize("name", ["torchao", "onnxruntime"])
def test_a_model_is_measured_in_a_process_of_its_own(
    directories: dict[str, Path], name: str
) -> None:
    from quantship.stages import benchmark

    request = {"threads": 1, "batch_size": 2, "prompt_tokens": 8, "decode_tokens": 2, "seed": 0}
    config = json.loads((directories[name] / "config.json").read_text())
    found = benchmark._measure(directories[name], request | benchmark._inputs(config))
    assert found["runtime"] == name
    assert min(found["decode_s"]) > 0
