"""What was pushed loads: downloaded from the Hub, and with the very code of its model card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_api import Hub
from local_hub import serve
from pushing import MODELS, REPO, WRITER, environment, push, run

FOLDERS = {"qat": "", "qat-onnx": "onnx", "ptq-onnx": "onnx"}
FILES = {"qat-onnx": "model_quantized.onnx", "ptq-onnx": "model_q4.onnx"}


@pytest.fixture(scope="module")
def hub(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with serve({WRITER: True}) as running:
        done = push(finished_run, running.url, tmp_path_factory.mktemp("home"))
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture(scope="module")
def downloaded(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files, as the client downloads them."""
    folder = tmp_path_factory.mktemp("downloaded")
    code = f"""
from huggingface_hub import snapshot_download
snapshot_download({REPO!r}, local_dir={str(folder / "files")!r})
"""
    done = run(["-c", code], environment(hub.url, folder / "home"), folder / "files")
    assert done.returncode == 0, done.stderr
    return folder / "files"


@pytest.fixture(scope="module")
def card(hub: Hub) -> str:
    return hub.repositories[REPO].files["README.md"].decode()


def snippets(card: str) -> dict[str, str]:
    """Code of a card by the library that it shows."""
    blocks = re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL)
    words = {"AutoModelForCausalLM": "transformers", "og.Model": "genai", "ORTModel": "optimum"}
    found = {name: block for word, name in words.items() for block in blocks if word in block}
    assert len(found) == len(blocks) == 3
    return found


def logits(directory: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    with torch.no_grad():
        return model(ids).logits


def test_transformers_computes_the_same_logits_to_the_bit(
    downloaded: Path, finished_run: Path, one_thread: None
) -> None:
    ids = torch.arange(5, 45)[None]
    ours = logits(finished_run / "models" / "qat", ids)
    assert torch.equal(logits(downloaded, ids), ours)
    assert ours.std() > 0


def test_the_tokenizer_at_the_top_is_the_checkpoints(downloaded: Path, finished_run: Path) -> None:
    from transformers import AutoTokenizer

    ours = AutoTokenizer.from_pretrained(finished_run / "models" / "qat")
    theirs = AutoTokenizer.from_pretrained(downloaded)
    text = "Größe, <|im_start|> 😀\n two  spaces"
    assert theirs(text).input_ids == ours(text).input_ids
    chat = [{"role": "user", "content": "Hello?"}]
    texts = [
        one.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for one in (ours, theirs)
    ]
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("name", FILES)
def test_onnxruntime_computes_the_same_logits_to_the_bit(
    downloaded: Path, finished_run: Path, name: str
) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found = []
    for file in (
        finished_run / "models" / name / "model.onnx",
        downloaded / "onnx" / FILES[name],
    ):
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        feeds = {}
        for one in session.get_inputs():
            if "past_key_values" in one.name:
                shape = [1, one.shape[1], 0, one.shape[3]]
                feeds[one.name] = np.zeros(shape, dtype=np.float32)
            elif one.name == "input_ids":
                feeds[one.name] = np.arange(5, 25, dtype=np.int64)[None]
            else:
                feeds[one.name] = np.ones((1, 20), dtype=np.int64)
        found.append(session.run(["logits"], feeds)[0])
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", FILES)
def test_genai_says_the_same_tokens(downloaded: Path, finished_run: Path, name: str) -> None:
    import onnxruntime_genai as og

    def said(config: og.Config) -> list[int]:
        model = og.Model(config)
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=40, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(og.Tokenizer(model).encode("The capital of"))
        while not generator.is_done():
            generator.generate_next_token()
        return list(generator.get_sequence(0))

    theirs = og.Config(str(downloaded / "onnx"))
    theirs.overlay(f'{{"model": {{"decoder": {{"filename": "{FILES[name]}"}}}}}}')
    ours = said(og.Config(str(finished_run / "models" / name)))
    assert said(theirs) == ours
    assert len(ours) > 10


@pytest.mark.parametrize("library", ["transformers", "genai"])
def test_the_cards_own_code_runs(
    hub: Hub, card: str, library: str, finished_run: Path, tmp_path: Path
) -> None:
    """As it stands: it downloads from the Hub, into its cache."""
    env = environment(hub.url, tmp_path / "home")
    done = run(["-c", snippets(card)[library]], env, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "What is the capital of France?" in done.stdout
    assert len(done.stdout) > len("user What is the capital of France? assistant")


def test_the_cards_code_is_pythons_and_names_files_that_are_there(hub: Hub, card: str) -> None:
    files = hub.repositories[REPO].files
    for code in snippets(card).values():
        compile(code, "README.md", "exec")
        assert f'"{REPO}"' in code
    assert 'file_name="model_quantized.onnx"' in snippets(card)["optimum"]
    assert "onnx/model_quantized.onnx" in files
    for name in re.findall(r"`(onnx/[\w.-]+)`", card):
        assert name in files


def test_the_card_states_what_the_report_does(hub: Hub, card: str, finished_run: Path) -> None:
    from huggingface_hub import ModelCard

    from quantship.reporting.schema import Report

    report = Report.model_validate_json((finished_run / "report.json").read_bytes())
    row = next(row for row in report.models if row.name == "qat")
    data = ModelCard(card).data
    assert row.metrics is not None
    values = {one.metric_name.split(" (")[0]: one.metric_value for one in data.eval_results}
    assert values["Perplexity"] == row.metrics.perplexity
    assert values["Token accuracy"] == row.metrics.token_accuracy
    assert values["text: perplexity"] == row.tasks["text"].metrics["perplexity"].value
    assert data.get("base_model") is None  # nothing is made up: the recipe made the model
    assert {"quantship", "torchao", "onnx", "qat", "w8a8"} <= set(data.tags)
    for name in MODELS:
        assert f"| {name} |" in card
    assert report.environment.cpu_model in card
