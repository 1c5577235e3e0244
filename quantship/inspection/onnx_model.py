"""An ONNX model's inspection, put together from what the other files of this room find."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from quantship.inspection import (
    grids,
    hazards,
    machine,
    names,
    onnx_file,
    onnx_floats,
    onnx_fusion,
    onnx_layers,
    onnx_values,
    sizes,
)
from quantship.inspection.locate import Found
from quantship.inspection.onnx_layers import Codes
from quantship.inspection.report import (
    Fusion,
    Hazard,
    Inspection,
    OnnxFacts,
    OperatorCount,
    Port,
    QuantizedTensor,
    QuantshipFacts,
)

METADATA = "quantship"
"""Key of an ONNX model's metadata that quantship writes; ``exporters.hooks`` names it too, and
takes seconds to import."""


def inspect(found: Found, *, session: bool) -> Inspection:
    """See ``inspect.inspect``."""
    file = onnx_file.read(found.files[0])
    own = _own(file.model)
    codes = onnx_layers.find(file.model)
    claimed = _claimed(codes, own, file)
    weight_bytes = sum(tensor.nbytes for tensor in file.tensors.values())
    quantized = _quantized(codes, claimed, own, file, weight_bytes)
    facts = _facts(file)
    here = machine.here()
    refusal = onnx_fusion.refusal(facts.ir_version, facts.opsets) if here.onnxruntime else None
    fusion = Fusion(status="skipped", reason="not asked for")
    if session and here.onnxruntime is None:
        fusion = Fusion(status="skipped", reason="onnxruntime is not installed")
    elif session and refusal is None:
        fusion, kernels = onnx_fusion.fused(file, codes)
        quantized = tuple(
            one.model_copy(update={"runs_as": kernels.get(one.tensor, ())}) for one in quantized
        )
        fusion = _by_layers(fusion, quantized)
    scheme = str(own["scheme"]) if own.get("scheme") else None
    floats = onnx_floats.find(file, (part for parts in claimed.values() for part in parts), scheme)
    found_hazards = [
        *hazards.of_versions(facts, here, refusal),
        *hazards.of_products(
            quantized, here, lambda one: grids.may_saturate(codes[one.tensor].codes)
        ),
        *hazards.of_storage(quantized, floats, weight_bytes),
        *hazards.of_fusion(fusion, bool(quantized)),
        *_contradiction(own, quantized, facts),
    ]
    return Inspection(
        path=str(found.files[0]),
        kind="onnx",
        sizes=sizes.count(quantized, floats, weight_bytes, file.size_bytes, found),
        onnx=facts,
        quantized=quantized,
        floats=floats,
        quantship=_quantship(own),
        metadata={
            key: value for key, value in file.model.metadata_props.items() if key != METADATA
        },
        fusion=fusion,
        machine=here,
        hazards=tuple(found_hazards),
    )


def _own(model: ir.Model) -> dict[str, Any]:
    """What quantship wrote into a model; empty for models from elsewhere."""
    try:
        parsed = json.loads(model.metadata_props.get(METADATA, "{}"))
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _claimed(
    codes: Mapping[str, Codes], own: Mapping[str, Any], file: onnx_file.OnnxFile
) -> dict[str, set[str]]:
    """Tensors that belong to each quantized weight, each to one of them only."""
    taken: set[str] = set()
    claimed: dict[str, set[str]] = {}
    for name, one in codes.items():
        parts = {part for part in one.parts if part in file.tensors}
        if own.get("places") and name.endswith(".codes"):
            # Beside codes and scales, a layer may have sums or the scale of its input.
            start = name.removesuffix("codes")
            parts |= {other for other in file.tensors if other.startswith(start)}
        claimed[name] = parts - taken
        taken |= parts
    return claimed


def _quantized(
    codes: Mapping[str, Codes],
    claimed: Mapping[str, set[str]],
    own: Mapping[str, Any],
    file: onnx_file.OnnxFile,
    weight_bytes: int,
) -> tuple[QuantizedTensor, ...]:
    places: dict[str, list[tuple[str, Any]]] = {}
    for layer, place in (own.get("places") or {}).items():
        places.setdefault(place["codes"], []).append((layer, place))
    made = []
    for name, one in codes.items():
        noted = places.get(name, [])
        layers = tuple(layer for layer, _ in noted)
        if not layers:
            layers = _named_by_readers(one)
        elif {use.does for use in one.uses} == {"looks up", "multiplies"}:
            layers = _with_reader(layers, one)
        num = sum((at["rows"][1] - at["rows"][0]) * at["in_features"] for _, at in noted)
        num = num or one.num_parameters
        size_bytes = sum(file.tensors[part].nbytes for part in claimed[name])
        scale_dtype = None if one.scale is None else one.scale.dtype
        made.append(
            QuantizedTensor(
                layers=layers,
                tensor=name,
                uses=tuple(one.uses),
                shape=one.shape,
                bits=one.bits_used,
                container_bits=one.bits,
                dtype=one.codes.dtype,
                granularity=one.sharing.granularity,
                group_size=one.sharing.group_size,
                symmetric=one.symmetric,
                scale_dtype=scale_dtype,
                format=grids.in_words(
                    one.bits_used, one.bits, one.sharing, one.symmetric, scale_dtype
                ),
                num_parameters=num,
                size_bytes=size_bytes,
                bits_per_parameter=8 * size_bytes / max(num, 1),
                share=size_bytes / max(weight_bytes, 1),
            )
        )
    return tuple(made)


def _named_by_readers(one: Codes) -> tuple[str, ...]:
    """Layers of a matrix that no metadata names: a tied one has two readers of different kinds."""
    kinds = {use.does: use.node for use in reversed(one.uses)}
    if len(kinds) < 2:
        return (names.layer_of(one.uses[0].node, one.codes.name),)
    return tuple(dict.fromkeys(names.layer_of(node, "") for node in kinds.values()))


def _with_reader(layers: tuple[str, ...], one: Codes) -> tuple[str, ...]:
    """A tied matrix is noted under one name; the other reader gives the other."""
    head = names.layer_of("", one.codes.name)
    return layers if head in layers else (*layers, head)


def _facts(file: onnx_file.OnnxFile) -> OnnxFacts:
    model = file.model
    counted = onnx_fusion.operators(model)
    producer = f"{model.producer_name or ''} {model.producer_version or ''}".strip()
    return OnnxFacts(
        ir_version=model.ir_version,
        opsets=dict(model.opset_imports),
        producer=producer or "not named",
        inputs=tuple(_port(value) for value in model.graph.inputs if not value.is_initializer()),
        outputs=tuple(_port(value) for value in model.graph.outputs),
        operators=tuple(
            OperatorCount(domain=domain, operator=operator, count=count)
            for (domain, operator), count in sorted(
                counted.items(), key=lambda item: (-item[1], item[0])
            )
        ),
        num_subgraphs=len(onnx_file.graphs(model)) - 1,
        external_files=tuple(one.name for one in file.external),
    )


def _port(value: ir.Value) -> Port:
    shape = None
    if value.shape is not None:
        shape = tuple(
            size if isinstance(size, int) else None if size.value is None else str(size.value)
            for size in value.shape
        )
    return Port(name=value.name or "", dtype=onnx_values.dtype_name(value.dtype), shape=shape)


def _quantship(own: Mapping[str, Any]) -> QuantshipFacts | None:
    if not own:
        return None
    known = {
        "scheme", "lowering", "target", "activation_arithmetic", "algorithm", "quantship_version",
        "source_sha256", "places",
    }  # fmt: skip
    return QuantshipFacts(
        scheme=own.get("scheme"),
        lowering=str(own.get("lowering", "unknown")),
        target=own.get("target"),
        arithmetic=str(own.get("activation_arithmetic", "unknown")),
        algorithm=own.get("algorithm"),
        version=own.get("quantship_version"),
        source_sha256=own.get("source_sha256"),
        num_layers=len(own.get("places") or {}),
        more={key: str(value) for key, value in own.items() if key not in known},
    )


def _by_layers(fusion: Fusion, quantized: tuple[QuantizedTensor, ...]) -> Fusion:
    """The same with layers in place of tensors."""
    layers = {one.tensor: names.joined(one.layers) for one in quantized}
    return fusion.model_copy(
        update={
            "unfused": tuple(layers[name] for name in fusion.unfused),
            "folded": tuple(layers[name] for name in fusion.folded),
        }
    )


def _contradiction(
    own: Mapping[str, Any], quantized: tuple[QuantizedTensor, ...], facts: OnnxFacts
) -> list[Hazard]:
    """Metadata that a later tool has carried over into a model that it changed."""
    noted = {place["codes"] for place in (own.get("places") or {}).values()}
    if not own or noted == {one.tensor for one in quantized}:
        return []
    return [
        Hazard(
            code="metadata-differs",
            severity="note",
            message=(
                f"quantship's metadata notes {len(noted)} quantized tensors, and the graph has "
                f"{len(quantized)}: {facts.producer} changed the model afterwards"
            ),
            remedy="do not trust the metadata; export again",
        )
    ]
