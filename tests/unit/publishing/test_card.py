from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from quantship.artifact import MANIFEST
from quantship.publishing.finished import Finished
from quantship.publishing.repository import Repository, prepare
from quantship.recipe.language import Push

Usual = Callable[..., Finished]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def prepared(run: Finished, *models: str, **options: Any) -> Repository:
    asked = Push(repo="me/it", models=models or ("qat", "qat-onnx"), **options)
    (found,) = prepare(run, asked)
    return found


def card(run: Finished, *models: str, **options: Any) -> str:
    return files(prepared(run, *models, **options))["README.md"].decode()


def files(repository: Repository) -> dict[str, bytes]:
    return {upload.path: upload.read() for upload in repository.uploads}


def test_metadata_is_the_base_models_and_what_was_measured(usual: Usual) -> None:
    data = ModelCard(card(usual(), base_model=BASE)).data
    assert data.get("base_model") == BASE
    assert data.get("base_model_relation") == "quantized"
    assert data.license == "apache-2.0"
    assert data.language == ["en"]
    assert data.pipeline_tag == "text-generation"
    assert data.library_name == "transformers"
    assert data.tags == ["safetensors", "chat", "quantship", "torchao", "qat", "w8a8", "onnx"]
    assert data.datasets == ["openai/gsm8k"]
    assert data.model_name == "it"
    values = {one.metric_type: one.metric_value for one in data.eval_results}
    assert values["exact_match"] == 0.4125
    assert values["accuracy"] == 0.6
    assert {one.dataset_type for one in data.eval_results} == {"openai/gsm8k"}
    named = {one.metric_name for one in data.eval_results}
    assert "gsm8k: exact match (95 % interval 0.3825 to 0.4425)" in named


def test_the_model_index_is_the_hubs(usual: Usual) -> None:
    data = ModelCard(card(usual())).data.to_dict()
    name, results = model_index_to_eval_results(data["model-index"])
    assert name == "it"
    assert len(results) == 3
    assert json.loads(json.dumps(data["model-index"])) == data["model-index"]


def test_nothing_is_made_up_of_a_directory_without_a_card(usual: Usual) -> None:
    run = usual()
    (run.model.path / "README.md").unlink()  # type: ignore[operator]
    text = card(run, license="other")
    data = ModelCard(text).data.to_dict()
    assert {"base_model", "base_model_relation", "language"}.isdisjoint(data)
    assert data["license"] == "other"
    assert "no name on the Hub is known" in text
    assert "has no model card" in text


def test_a_model_that_was_only_trained_is_a_finetune(maker: Any) -> None:
    run = maker.run({"tuned": ("float", None)})
    data = ModelCard(card(run, "tuned", base_model=BASE)).data
    assert data.get("base_model_relation") == "finetune"


def test_the_table_has_the_float_model_and_intervals(usual: Usual) -> None:
    text = card(usual())
    rows = {
        cells[0]: cells
        for line in text.partition("## Results")[2].splitlines()
        if line.startswith("| ")
        for cells in [[cell.strip() for cell in line.strip("| ").split(" | ")]]
    }
    assert rows.keys() == {"Model", "---", "finetune", "qat", "qat-onnx"}
    assert all(len(cells) == len(rows["Model"]) for cells in rows.values())
    assert "41.25 % (38.25 to 44.25)" in rows["qat"]
    assert "135.8" in rows["qat"]
    assert "95 % intervals" in text
    assert "qat against finetune, exact match on gsm8k: -2.00 percentage points" in text
    assert "AMD EPYC 7B13" in text


def test_text_from_outside_cannot_break_the_card(usual: Usual) -> None:
    text = card(usual())
    assert r"A \*test\* of \| cards." in text
    assert text.count("```") % 2 == 0


@pytest.mark.parametrize("layout", ["one", "folders"])
def test_snippets_are_python_and_name_what_is_there(usual: Usual, layout: str) -> None:
    repository = prepared(usual(), "qat", "ptq-onnx", layout=layout, revision="next")
    held = files(repository)
    text = held["README.md"].decode()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for code in blocks:
        compile(code, "README.md", "exec")
        assert 'revision="next"' in code
        for folder in re.findall(r'subfolder="([^"]+)"', code):
            assert any(path.startswith(f"{folder}/") for path in held)
    assert len(text.splitlines()) > 50


def test_what_plain_transformers_cannot_load_is_shown_with_quantship(maker: Any) -> None:
    run = maker.run({"qat": ("torchao", "w8a8-static"), "ptq": ("torchao", "w4a16-g32")})
    assert "quantship.load(" in card(run, "qat")
    assert "AutoModelForCausalLM" in card(run, "ptq")
    config = run.path("ptq") / "config.json"
    kind = {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **kind}))
    config.with_name(MANIFEST).unlink()  # it lists another one
    assert "quantship.load(" in card(run, "ptq")


def test_terms_of_the_base_model_go_along(maker: Any) -> None:
    run = maker.run({"qat": ("torchao", "w8a8")})
    maker.base(
        "---\nlicense: llama3.2\nextra_gated_prompt: Accept.\n---\n",
        {
            "LICENSE.txt": "LLAMA 3.2 COMMUNITY LICENSE",
            "NOTICE": "of them",
            "USE_POLICY.md": "Do no harm.",
        },
    )
    asked = Push(repo="me/Llama-3.2-it", models=("qat",))
    (repository,) = prepare(run, asked)
    held = files(repository)
    assert held["LICENSE.txt"] == b"LLAMA 3.2 COMMUNITY LICENSE"
    assert held["USE_POLICY.md"] == b"Do no harm."
    notice = held["NOTICE"].decode()
    assert notice.startswith("Llama 3.2 is licensed under the Llama 3.2 Community License")
    assert "of them" in notice
    text = held["README.md"].decode()
    assert "**Built with Llama**" in text
    assert "The base model is gated" in text
    assert repository.license.remarks == (
        'llama3.2 asks to display "Built with Llama"; the model card does.',
    )


def test_preparing_twice_gives_the_same_bytes(usual: Usual) -> None:
    run = usual()
    assert files(prepared(run)) == files(prepared(run))


def test_the_report_and_the_recipe_are_there(usual: Usual) -> None:
    run = usual()
    (run.directory / "lock.json").write_text("{}")
    held = files(prepared(run))
    for name in ("report.json", "report.md", "report.html", "lock.json"):
        assert held[name] == (run.directory / name).read_bytes()
    assert b"name: it" in held["recipe.yaml"]
    text = held["README.md"].decode()
    assert "quantship run --locked lock.json" in text
