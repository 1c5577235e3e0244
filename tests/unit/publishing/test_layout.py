from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from quantship.errors import UsageError
from quantship.publishing.finished import Finished
from quantship.publishing.layout import Layout, lay_out, repositories
from quantship.recipe.language import Push

Usual = Callable[..., Finished]


def laid_out(run: Finished, *models: str, **options: Any) -> Layout:
    (found,) = lay_out(run, Push(repo="me/it", models=models, **options))
    return found


def paths(layout: Layout) -> set[str]:
    return {upload.path for upload in layout.uploads}


def content(layout: Layout, path: str) -> bytes:
    return next(upload for upload in layout.uploads if upload.path == path).read()


AROUND = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_checkpoint_lies_at_the_top_and_models_in_onnx(usual: Usual) -> None:
    found = laid_out(usual(), "qat", "qat-onnx", "ptq-onnx")
    models = {
        f"onnx/model_{word}.onnx{end}" for word in ("quantized", "q4") for end in ("", "_data")
    }
    assert paths(found) == {
        "model.safetensors",
        *AROUND,
        *(f"onnx/{name}" for name in (*AROUND, "genai_config.json")),
        *models,
    }
    assert [place.folder for place in found.places] == ["", "onnx", "onnx"]
    assert "quantization_config" in json.loads(content(found, "config.json"))
    assert "quantization_config" not in json.loads(content(found, "onnx/config.json"))


def test_a_checkpoint_alone_is_as_it_lies_on_disk(usual: Usual) -> None:
    run = usual()
    found = laid_out(run, "qat")
    assert paths(found) == {"model.safetensors", *AROUND}
    for name in AROUND:
        assert content(found, name) == (run.path("qat") / name).read_bytes()


def test_onnx_alone_has_what_clients_want_at_the_top(usual: Usual) -> None:
    found = laid_out(usual(), "ptq-onnx")
    assert {path for path in paths(found) if "/" not in path} == AROUND
    config = json.loads(content(found, "config.json"))
    assert config["transformers.js_config"]["dtype"] == "q4"


@pytest.mark.parametrize("layout", ["one", "folders"])
def test_a_damaged_model_goes_nowhere(layout: str, usual: Usual) -> None:
    run = usual()
    weights = run.path("qat") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    with pytest.raises(UsageError, match=r"'qat' .* is damaged"):
        laid_out(run, "qat", layout=layout)
    weights.write_bytes(whole)
    assert laid_out(run, "qat", layout=layout)
    weights.with_name("adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"not its own: adapter_config\.json"):
        laid_out(run, "qat", layout=layout)


def test_what_belongs_to_the_run_and_not_to_the_model_stays(usual: Usual) -> None:
    run = usual()
    for layout in ("one", "folders"):
        names = {path.rpartition("/")[2] for path in paths(laid_out(run, "qat", layout=layout))}
        assert not names & {"artifact.json", "lock.json", "noise.log"}


def test_folders_keep_every_name(usual: Usual) -> None:
    run = usual()
    found = laid_out(run, "qat", "ptq-onnx", layout="folders")
    assert paths(found) == {
        *(f"qat/{name}" for name in ("model.safetensors", *AROUND)),
        *(f"ptq-onnx/{name}" for name in ("model.onnx", "model.onnx_data", *AROUND)),
        "ptq-onnx/genai_config.json",
    }
    for upload in found.uploads:
        assert upload.read() == (run.directory / "models" / upload.path).read_bytes()


def test_several_repositories_are_named_by_their_models(usual: Usual) -> None:
    push = Push(repo="me/it", models=("qat", "ptq-onnx"), layout="several")
    assert repositories(push) == {"me/it-qat": ("qat",), "me/it-ptq-onnx": ("ptq-onnx",)}
    first, second = lay_out(usual(), push)
    assert "model.safetensors" in paths(first)
    assert "onnx/model_q4.onnx" in paths(second)


def test_two_models_of_one_place_are_refused(maker: Any) -> None:
    models = {"a": ("onnx", "w4a16-g32"), "b": ("onnx", "w4a8"), "c": ("torchao", "w8a8")}
    run = maker.run({**models, "d": ("torchao", "w8a16")})
    for pair in (("a", "b"), ("c", "d")):
        with pytest.raises(UsageError, match="cannot both be"):
            laid_out(run, *pair)


def test_a_model_that_is_not_there_is_named(usual: Usual) -> None:
    run = usual()
    with pytest.raises(UsageError, match=r"no model of .* is called 'other'"):
        laid_out(run, "other")
    with pytest.raises(UsageError, match=r"'finetune' of .* is not there any more"):
        laid_out(run, "finetune")
