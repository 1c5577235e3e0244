"""What programs that load an ONNX decoder look for in its directory, in words that each reads.

onnxruntime-genai reads ``genai_config.json``, which its model builder writes. ``optimum`` brings
transformers 4, and transformers.js its own code; both read ``config.json``,
``generation_config.json`` and ``tokenizer_config.json``, and from the Hub they fetch external data
by the name ``model.onnx_data``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA_FILE = "model.onnx_data"
"""Name of the external data, which clients derive from the model's."""
TRANSFORMERS_JS = {"dtype": "fp32", "use_external_data_format": {"model": 1}}
"""``dtype`` picks a file by the end of its name, and ``fp32`` means none; one file of data."""
DECODER_TOKENIZER = {"model_input_names": ["input_ids", "attention_mask"], "padding_side": "left"}
"""What the model takes, and where ``generate`` wants padding: it would go on after any other."""
OWN_OF_TRANSFORMERS_5 = ("backend", "is_local", "local_files_only")
"""What a tokenizer notes of how it was loaded."""


def complete(source: Path, out: Path) -> None:
    """Write the configuration files into an export, and make its tokenizer's one for everybody.

    Args:
        source: Hugging Face directory of the model that was exported.
        out: Directory of a decoder with ``genai_config.json``, or of another model; with the
            tokenizer's files, where there is a tokenizer.
    """
    is_decoder = (out / "genai_config.json").is_file()
    config = _config(_read(source / "config.json"), has_data=(out / DATA_FILE).is_file())
    _write(out / "config.json", {**config, "use_cache": True} if is_decoder else config)
    if is_decoder:
        genai = _read(out / "genai_config.json")["model"]
        stored = source / "generation_config.json"
        generation = _read(stored) if stored.is_file() else {}
        _write(out / "generation_config.json", _generation(generation, genai))
    if not (out / "tokenizer_config.json").is_file():
        return
    template = out / "chat_template.jinja"
    tokenizer = _read(out / "tokenizer_config.json")
    if template.is_file():  # which transformers.js does not read
        tokenizer["chat_template"] = template.read_text()
        template.unlink()
    for_decoder = DECODER_TOKENIZER if is_decoder else {}
    _write(out / "tokenizer_config.json", {**_tokenizer(tokenizer), **for_decoder})


def _config(source: dict[str, Any], *, has_data: bool) -> dict[str, Any]:
    """The model's dimensions, without how its checkpoint was quantized."""
    dropped = ("quantization_config", "torch_dtype", "_name_or_path")
    kept = {key: value for key, value in source.items() if key not in dropped}
    found = TRANSFORMERS_JS if has_data else {"dtype": TRANSFORMERS_JS["dtype"]}
    return {**kept, "dtype": "float32", "transformers.js_config": found}


def _generation(source: dict[str, Any], genai: dict[str, Any]) -> dict[str, Any]:
    """The model's own, with the tokens at which onnxruntime-genai stops."""
    return {**source, "eos_token_id": genai["eos_token_id"], "pad_token_id": genai["pad_token_id"]}


def _tokenizer(source: dict[str, Any]) -> dict[str, Any]:
    """In the words of transformers 4, which transformers 5 and the others read as well."""
    config = {key: value for key, value in source.items() if key not in OWN_OF_TRANSFORMERS_5}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    return config


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
