from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: the extra `bench`")
pytest.importorskip("gguf", reason="gguf is not installed: the extra `bench`")


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    from quantship.recipe.language import TinyModel
    from quantship.tiny import build_model, build_tokenizer

    tokenizer = build_tokenizer(512)
    dimensions = TinyModel(tied=request.param)
    build_model(dimensions, tokenizer, seed=3).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_llama_cpp_computes_what_torch_does(model: Path, tmp_path: Path) -> None:
    import gguf_writer
    from llama_runtime import LlamaRuntime, bytes_per_token

    from quantship.models import load_float
    from quantship.runtimes.weights import bytes_per_token as bytes_of_checkpoint

    file = tmp_path / "model.gguf"
    gguf_writer.write(model, file)
    tokens = np.random.default_rng(0).integers(4, 260, (1, 40))
    with torch.inference_mode():
        expected = load_float(model)(torch.from_numpy(tokens)).logits[0].numpy()
    near = 0.01 * expected.std()  # llama.cpp keeps keys and values in float16
    all_logits = LlamaRuntime(file, 1, all_logits=True).logits(tokens, np.ones_like(tokens))
    assert np.abs(all_logits[0] - expected).max() < near
    runtime = LlamaRuntime(file, 1)
    for _ in range(2):  # a second prompt begins anew
        steps = [runtime.prefill(tokens[:, :38], 64)]
        steps += [runtime.decode(tokens[:, place]) for place in (38, 39)]
        assert np.abs(np.concatenate(steps) - expected[37:]).max() < near
    assert bytes_per_token(file) == bytes_of_checkpoint(model)


def test_quantized_files_are_smaller_and_near(model: Path, tmp_path: Path) -> None:
    import gguf_writer
    import llama_runtime

    gguf_writer.write(model, tmp_path / "F32.gguf")
    tokens = np.random.default_rng(0).integers(4, 260, (1, 40))
    logits, sizes = {}, {}
    for kind in ("F32", "Q8_0", "Q4_0"):
        file = tmp_path / f"{kind}.gguf"
        if kind != "F32":
            llama_runtime.quantize(tmp_path / "F32.gguf", file, kind)
        runtime = llama_runtime.LlamaRuntime(file, 1, all_logits=True)
        logits[kind] = runtime.logits(tokens, np.ones_like(tokens))
        sizes[kind] = llama_runtime.bytes_per_token(file)
    errors = {kind: np.abs(logits[kind] - logits["F32"]).mean() for kind in ("Q8_0", "Q4_0")}
    assert 0 < errors["Q8_0"] < errors["Q4_0"] < logits["F32"].std()
    assert sizes["F32"] / sizes["Q8_0"] == pytest.approx(4 / (34 / 32), rel=0.02)
    assert sizes["Q4_0"] < sizes["Q8_0"]
