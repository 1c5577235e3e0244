"""A Hugging Face Llama as a GGUF file in float32, for llama.cpp to quantize and serve.

llama.cpp rotates pairs of neighbouring features and transformers the two halves of a head, so the
rows of query and key are put in llama.cpp's order. The vocabulary goes along, as in the files that
users download; measurements hand over token ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARCHITECTURE = "LlamaForCausalLM"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of GGUF
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Modules of a decoder layer, and what GGUF calls them."""
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def reject(source: Path) -> str | None:
    """Why a model cannot be written by this file, or None where it can."""
    config = json.loads((source / "config.json").read_text())
    if config["architectures"] != [ARCHITECTURE]:
        return f"the GGUF writer of this benchmark knows {ARCHITECTURE} only"
    if config.get("rope_parameters", {}).get("rope_type", "default") != "default":
        return "the GGUF writer of this benchmark knows plain rotary embeddings only"
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    if tokenizer["model"]["type"] != "BPE":
        return "the GGUF writer of this benchmark knows byte-level BPE only"
    return None


def write(source: Path, out: Path) -> None:
    """Write the model of a directory to the file ``out``."""
    from gguf import GGUFWriter, LlamaFileType

    writer = GGUFWriter(out, "llama")
    config = json.loads((source / "config.json").read_text())
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_vocabulary(writer, source, config)
    _add_tensors(writer, source, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, source: Path, config: dict[str, Any]) -> None:
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    size = config["vocab_size"]
    tokens, types = [f"[PAD{place}]" for place in range(size)], [UNUSED] * size
    for token, place in tokenizer["model"]["vocab"].items():
        tokens[place], types[place] = token, NORMAL
    for added in tokenizer["added_tokens"]:
        place = added["id"]
        tokens[place] = added["content"]
        types[place] = CONTROL if added["special"] else USER_DEFINED
    merges = tokenizer["model"]["merges"]
    if not merges:  # llama.cpp wants some, or no vocabulary: the ids are all that is handed over
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_add_bos_token(False)
    if config.get("bos_token_id") is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    if config.get("eos_token_id") is not None:
        writer.add_eos_token_id(config["eos_token_id"])


def _add_tensors(writer: Any, source: Path, config: dict[str, Any]) -> None:
    from safetensors import safe_open

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name == "lm_head.weight" and config["tie_word_embeddings"]:
                    continue
                array = tensors.get_tensor(name).float().numpy()
                module = name.rpartition(".")[0].rpartition(".")[2]
                if module in heads:
                    array = _interleaved(array, heads[module])
                writer.add_tensor(_renamed(name), array)


def _renamed(name: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{LAYER[module]}.{kind}"


def _interleaved(array: Any, heads: int) -> Any:
    """Rows of each head's two halves by turns, instead of one half after the other."""
    shape = array.shape
    halves = array.reshape(heads, 2, shape[0] // heads // 2, *shape[1:])
    return halves.swapaxes(1, 2).reshape(shape)
