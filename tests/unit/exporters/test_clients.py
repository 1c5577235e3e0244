from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from quantship.artifact import digest_file
from quantship.exporters.clients import DATA_FILE, complete
from quantship.exporters.decoder import export

pytestmark = pytest.mark.usefixtures("one_thread")

CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def exported(checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder; not to be written to."""
    out = tmp_path_factory.mktemp("exported")
    export(checkpoint_dir, "nbits", "w8a8", out, "x86")
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_configuration_is_the_models_without_its_checkpoints_format(
    exported: Path, checkpoint_dir: Path
) -> None:
    before, after = read(checkpoint_dir / "config.json"), read(exported / "config.json")
    assert set(before) - set(after) == {"quantization_config"}
    assert set(after) - set(before) == {"transformers.js_config"}
    assert after["dtype"] == "float32"
    same = set(before) & set(after) - {"dtype"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert AutoConfig.from_pretrained(exported).head_dim == before["head_dim"]


def test_all_weights_lie_where_clients_look_for_them(exported: Path) -> None:
    assert not list(exported.glob("*.data"))
    assert (exported / DATA_FILE).stat().st_size > 10 * (exported / "model.onnx").stat().st_size
    told = read(exported / "config.json")["transformers.js_config"]
    assert told == {"dtype": "fp32", "use_external_data_format": {"model": 1}}


def test_all_clients_stop_at_the_same_tokens(exported: Path) -> None:
    genai = read(exported / "genai_config.json")["model"]
    config = GenerationConfig.from_pretrained(exported)
    assert (config.eos_token_id, config.pad_token_id) == (3, 0)
    assert (genai["eos_token_id"], genai["pad_token_id"]) == (3, 0)


def test_the_tokenizer_is_the_same_in_the_words_of_older_readers(
    exported: Path, checkpoint_dir: Path
) -> None:
    told = read(exported / "tokenizer_config.json")
    assert told["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert told["additional_special_tokens"] == ["<|end|>", "<|im_start|>"]
    assert "extra_special_tokens" not in told
    before, after = map(AutoTokenizer.from_pretrained, (checkpoint_dir, exported))
    assert after.get_vocab() == before.get_vocab()
    assert after.all_special_tokens == before.all_special_tokens
    text = "<|im_start|>Größe, 😀\n\t  two  spaces<|end|>"
    assert after(text).input_ids == before(text).input_ids
    assert set(after(text)) == {"input_ids", "attention_mask"}
    for flag in (True, False):
        shown = [
            one.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=flag)
            for one in (before, after)
        ]
        assert shown[0] == shown[1]


def test_the_chat_template_is_written_once_where_all_read_it(exported: Path) -> None:
    assert "<|im_start|>" in read(exported / "tokenizer_config.json")["chat_template"]
    assert not (exported / "chat_template.jinja").exists()


def test_completing_twice_changes_nothing(
    exported: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(exported, again)
    complete(checkpoint_dir, again)
    for path in exported.iterdir():
        assert digest_file(again / path.name) == digest_file(path), path.name


def test_several_stop_tokens_are_all_told(
    exported: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    genai = read(out / "genai_config.json")
    genai["model"]["eos_token_id"] = [3, 1]
    (out / "genai_config.json").write_text(json.dumps(genai))
    complete(checkpoint_dir, out)
    assert GenerationConfig.from_pretrained(out).eos_token_id == [3, 1]


def test_settings_of_generation_are_the_models_own(
    exported: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(checkpoint_dir, source)
    shutil.copytree(exported, out)
    own = {**read(source / "generation_config.json"), "do_sample": True, "temperature": 0.6}
    (source / "generation_config.json").write_text(json.dumps(own))
    complete(source, out)
    assert read(out / "generation_config.json") == own
    (source / "generation_config.json").unlink()
    complete(source, out)
    assert GenerationConfig.from_pretrained(out).eos_token_id == 3


def test_a_model_without_chat_template_gets_none(
    exported: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    told = read(out / "tokenizer_config.json")
    del told["chat_template"]
    (out / "tokenizer_config.json").write_text(json.dumps(told))
    complete(checkpoint_dir, out)
    assert AutoTokenizer.from_pretrained(out).chat_template is None


def test_nothing_tells_where_it_was_made(exported: Path, checkpoint_dir: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        text = (exported / name).read_text()
        assert str(checkpoint_dir) not in text
        assert "is_local" not in text
