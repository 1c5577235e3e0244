from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification

from quantship.errors import QuantshipError
from quantship.quant.scheme import STATIC, Override, Scheme, WeightFormat
from quantship.runtimes.base import greedy, open_runtime

pytest.importorskip("openvino", reason="pip install 'quantship[openvino]'")

from quantship.exporters import openvino, openvino_codes

pytestmark = pytest.mark.usefixtures("one_thread")
MIXED = Scheme(
    name="mixed",
    weight=WeightFormat(bits=4, group_size=32, scale_dtype="bfloat16", symmetric=False),
    embedding=WeightFormat(bits=8),
    overrides=(
        Override(layers="*.0.mlp.down_proj", weight=WeightFormat(bits=8), activation=STATIC),
        Override(layers="*.1.mlp.down_proj", weight=None),
        Override(layers="*.1.mlp.up_proj", weight=WeightFormat(bits=3, group_size=16)),
        Override(
            layers="*.0.self_attn.o_proj",
            weight=WeightFormat(bits=8, granularity="per_tensor"),
        ),
        Override(layers="*.1.self_attn.o_proj", weight=WeightFormat(bits=8, symmetric=False)),
    ),
)
"""All that a layer can be: packed and not, with and without zero points, rounded inputs, float."""
NEAR = {"w8a16": 1e-5, "w8a8-static": 1e-5, "w8a8": 0.05, "mixed": 1e-5}
"""Largest difference of logits from torch; w8a8's inputs are rounded otherwise than in training."""
Export = Callable[[str], tuple[Path, Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def exported(
    make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """Source, OpenVINO directory and facts of a tiny model of a scheme; not to be written to."""
    made: dict[str, tuple[Path, Path, dict[str, Any]]] = {}

    def export(scheme: str) -> tuple[Path, Path, dict[str, Any]]:
        if scheme not in made:
            source = make_checkpoint(MIXED if scheme == "mixed" else scheme)
            out = tmp_path_factory.mktemp("openvino")
            made[scheme] = source, out, openvino.export(source, scheme, out)
        return made[scheme]

    return export


@pytest.mark.parametrize("scheme", NEAR)
def test_the_codes_are_the_checkpoints_to_the_bit(scheme: str, exported: Export) -> None:
    source, out, facts = exported(scheme)
    compared = openvino_codes.compare(out, source)
    assert compared.different == ()
    assert compared.tensors_compared == facts["num_quantized"] == (14 if scheme == "mixed" else 15)


@pytest.mark.parametrize("scheme", NEAR)
def test_logits_are_near_those_of_the_checkpoint(scheme: str, exported: Export) -> None:
    source, out, _ = exported(scheme)
    ids = np.random.default_rng(0).integers(5, 280, (2, 24))
    mask = np.ones_like(ids)
    mask[1, 15:] = 0
    found, expected = (open_runtime(path, 1).logits(ids, mask) for path in (out, source))
    assert np.abs(found - expected)[mask == 1].max() < NEAR[scheme]


@pytest.mark.parametrize("scheme", ["w8a16", "mixed"])
def test_token_by_token_is_the_same_as_all_at_once(scheme: str, exported: Export) -> None:
    _, out, _ = exported(scheme)
    runtime = open_runtime(out, 1)
    ids = np.random.default_rng(1).integers(5, 280, (3, 12))
    whole = runtime.logits(ids, np.ones_like(ids))
    for _ in range(2):  # nothing is left of the first time
        steps = [
            runtime.prefill(ids[:, :6], 12),
            *(runtime.decode(ids[:, at]) for at in range(6, 11)),
        ]
        np.testing.assert_allclose(np.stack(steps, 1), whole[:, 5:11], atol=1e-5)


def test_greedy_text_is_that_of_the_checkpoint(exported: Export) -> None:
    source, out, _ = exported("w8a16")
    prompt = [7, 40, 200, 33]
    found, expected = (greedy(open_runtime(path, 1), prompt, 12) for path in (out, source))
    assert found == expected


def test_integers_are_stored_as_such_and_a_tied_matrix_once(exported: Export) -> None:
    source, out, _ = exported("w8a16")
    codes = openvino_codes.checkpoint.load_codes(source).values()
    integers = sum(part.codes.codes_OI.numel() for part in codes)
    rest = sum(4 * part.codes.scale_OG.numel() for part in codes)
    size = (out / "openvino_model.bin").stat().st_size
    assert integers + rest <= size < 1.05 * integers + rest


def test_four_bit_codes_take_half_a_byte(exported: Export) -> None:
    source, out, _ = exported("mixed")
    constants = {op.get_friendly_name(): op for op in openvino_codes._read(out).get_ops()}
    for name, part in openvino_codes.checkpoint.load_codes(source).items():
        stored = constants[f"{name}.codes"].get_byte_size()
        assert stored * (2 if part.bits <= 4 else 1) == part.codes.codes_OI.numel()


def test_the_model_says_what_it_is(exported: Export) -> None:
    source, out, facts = exported("w8a16")
    described = openvino_codes.metadata(out)
    assert described == {key: facts[key] for key in described}
    assert described["scheme"] == "w8a16"
    assert described["source_sha256"] == openvino.origin.digest_weights(source)
    json.dumps(facts)


@pytest.mark.parametrize(
    ("scheme", "said", "group"),
    [
        ("w8a16", "float32", "0"),
        ("w8a8", "int8, symmetric, dynamic", "32"),
        ("w8a8-static", "int8, static, .* as in training .14 of 15 layers.; float32", "0"),
    ],
)
def test_the_arithmetic_is_stated_and_asked_for(
    scheme: str, said: str, group: str, exported: Export
) -> None:
    import re

    _, out, facts = exported(scheme)
    assert re.match(said, facts["activation_arithmetic"])
    model = openvino_codes._read(out)
    asked = model.get_rt_info(["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    assert asked.astype(str) == group


def test_the_directory_holds_all_that_a_client_needs(exported: Export) -> None:
    _, out, _ = exported("w8a16")
    written = {path.name for path in out.iterdir()}
    assert written >= {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json"}
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    names = {input.any_name for input in openvino_codes._read(out).inputs}
    assert names == {"input_ids", "attention_mask", "position_ids", "beam_idx"}


@pytest.mark.parametrize("part", ["codes", "scales", "zeros"])
def test_a_changed_number_is_found(part: str, exported: Export, tmp_path: Path) -> None:
    source, out, _ = exported("mixed")
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    name = "model.layers.0.mlp.gate_proj"
    model = openvino_codes._read(out)
    constants = {op.get_friendly_name(): op for op in model.get_ops()}
    raw = np.array(constants[f"{name}.{part}"].data).tobytes()
    content = (tmp_path / "openvino_model.bin").read_bytes()
    assert content.count(raw) == 1
    at = content.index(raw)
    changed = bytes([content[at] ^ 1])
    (tmp_path / "openvino_model.bin").write_bytes(content[:at] + changed + content[at + 1 :])
    assert openvino_codes.compare(tmp_path, source).different == (name,)


def test_another_static_range_is_found(exported: Export, tmp_path: Path) -> None:
    import openvino as ov

    source, out, _ = exported("mixed")
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    model = openvino_codes._read(out)
    rounded = [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]
    assert len(rounded) == 1
    end = rounded[0].input_value(1).get_node()
    wider = ov.opset13.constant(np.array(end.data * 2, np.float32))
    rounded[0].input(1).replace_source_output(wider.output(0))
    ov.save_model(model, tmp_path / openvino.MODEL_FILE, compress_to_fp16=False)
    name = "model.layers.0.mlp.down_proj"
    assert openvino_codes.compare(tmp_path, source).different == (name,)


def test_a_float_model_is_written_as_it_is(tiny_model_dir: Path, tmp_path: Path) -> None:
    facts = openvino.export(tiny_model_dir, None, tmp_path)
    assert (facts["scheme"], facts["num_quantized"]) == (None, 0)
    ids = np.arange(5, 25)[None]
    found, expected = (
        open_runtime(path, 1).logits(ids, np.ones_like(ids)) for path in (tmp_path, tiny_model_dir)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_libraries_are_left_as_they_were(exported: Export) -> None:
    from openvino.tools.ovc import convert_impl, telemetry_stub
    from transformers.exporters.exporter_openvino import _OV_CONVERSION_EXTENSIONS

    before = len(_OV_CONVERSION_EXTENSIONS), convert_impl.tm
    assert convert_impl.tm is not telemetry_stub
    with openvino.openvino_layers.drawn(openvino.openvino_layers.Layers({})):
        with openvino._telemetry_off():
            assert convert_impl.tm is telemetry_stub
        assert len(_OV_CONVERSION_EXTENSIONS) == before[0] + 2
    assert (len(_OV_CONVERSION_EXTENSIONS), convert_impl.tm) == before


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "out").mkdir()
    with pytest.raises(QuantshipError, match="decoders of text"):
        openvino.export(tmp_path / "bert", None, tmp_path / "out")
