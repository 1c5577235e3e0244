"""What an inspection finds, as values; ``--json`` prints just these."""

from __future__ import annotations

from typing import Literal

from quantship.frozen import Frozen

Granularity = Literal["per_tensor", "per_channel", "per_group", "unknown"]
Role = Literal["norm", "bias", "embedding", "head", "matrix", "convolution", "other"]
Severity = Literal["wrong", "fails", "slow", "size", "note"]


class Port(Frozen):
    """An input or output of an ONNX model."""

    name: str
    dtype: str
    """As NumPy names it: ``int64``, ``float32``."""
    shape: tuple[int | str | None, ...] | None
    """Sizes; symbolic dimensions by name, unnamed ones as null; null where the rank is unknown."""


class OperatorCount(Frozen):
    """How often an operator occurs, in all branches together."""

    domain: str
    """Empty for ONNX's own operators."""
    operator: str
    count: int


class Use(Frozen):
    """One reader of a quantized tensor."""

    operator: str
    """ONNX operator, as ``MatMulNBits`` or ``DequantizeLinear → MatMul``; torchao's class in a
    checkpoint."""
    node: str
    """Name of the node, or of the module in a checkpoint."""
    does: Literal["multiplies", "looks up", "convolves", "other"]
    activation: str
    """What becomes of the other factor before they are multiplied, in words."""
    input_dtype: str | None = None
    """Of the other factor's codes: ``uint8``, ``int8``; null: it stays in float."""
    weight_dtype: str | None = None
    """Of the weight's codes as the operator gets them; nodes in between may have changed it."""
    accuracy_level: int | None = None
    """Of MatMulNBits; 0 or 1 multiply in float32."""


class QuantizedTensor(Frozen):
    """A matrix of integer codes, stored once, with everything that belongs to it."""

    layers: tuple[str, ...]
    """Layers that it is the weight of: several where the exporter joined them, or tied ones."""
    tensor: str
    """Initializer, or tensor of the file, that holds the codes."""
    uses: tuple[Use, ...]
    shape: tuple[int, ...]
    """(out features, in features) where the operator says which is which; else as stored."""
    bits: int
    """Bits of a code."""
    container_bits: int
    """Bits that a code takes in the file."""
    dtype: str
    """Of the stored tensor: ``uint8``, ``int4``."""
    granularity: Granularity
    """What shares a scale."""
    group_size: int | None
    """Input features that share a scale, where a row has several scales."""
    symmetric: bool | None
    """Whether zero points are absent or all stand for the middle; null: it cannot be told."""
    scale_dtype: str | None
    """Precision of the scales in the file."""
    format: str
    """The above in words."""
    num_parameters: int
    """Codes, those of padding left out."""
    size_bytes: int
    """Codes, scales, zero points and what else belongs to the layer alone."""
    bits_per_parameter: float
    share: float
    """Of all weight bytes, from 0 to 1."""
    runs_as: tuple[str, ...] = ()
    """Operators that ONNX Runtime made of its uses on this machine; empty where it was not asked
    or the tensor was folded away."""


class FloatTensor(Frozen):
    """A parameter that is not quantized."""

    name: str
    layer: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    num_parameters: int
    size_bytes: int
    reason: str
    """Why it is in float, as far as can be told."""


class Sizes(Frozen):
    """Numbers of parameters, and bytes."""

    num_parameters: int
    """Logical ones: no padding, no scales, no tables, and tied matrices once."""
    num_quantized: int
    """Those of them that are integer codes."""
    quantized_bytes: int
    """Codes, their scales and zero points."""
    float_bytes: int
    """Parameters in float."""
    other_bytes: int
    """Tables and constants, as those of rotary embeddings and shapes."""
    weight_bytes: int
    """The three above together."""
    file_bytes: int
    """The files that make up the model: graph and external data, or all shards."""
    directory_bytes: int | None
    """Everything in the directory, tokenizer included; null where a file was given."""
    bits_per_parameter: float | None
    """Of ``weight_bytes``."""


class OnnxFacts(Frozen):
    """What an ONNX file says about itself."""

    ir_version: int
    opsets: dict[str, int]
    """By domain; empty for ONNX's own."""
    producer: str
    """Program and version."""
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    operators: tuple[OperatorCount, ...]
    """Most frequent first; functions count as what they are made of."""
    num_subgraphs: int
    """Branches and loop bodies."""
    external_files: tuple[str, ...]
    """Files beside the model that hold tensors."""


class CheckpointFacts(Frozen):
    """What a checkpoint says about itself."""

    architecture: str | None
    model_type: str | None
    tied: bool
    """Whether the head is the embedding."""
    quantization: str
    """Method and version, in words."""
    files: tuple[str, ...]
    """Weight files."""


class QuantshipFacts(Frozen):
    """What quantship wrote into the model when it exported it."""

    scheme: str | None
    lowering: str
    target: str | None
    arithmetic: str
    """What layers do to their inputs when the model runs."""
    algorithm: str | None
    """How weights were rounded, where the file says."""
    version: str | None
    """quantship's, where the file says."""
    source_sha256: str | None
    """Digest of the checkpoint that the codes come from."""
    num_layers: int
    """Quantized layers that it notes the places of."""
    more: dict[str, str]
    """Whatever else it holds."""


class OperatorChange(Frozen):
    """An operator whose number ONNX Runtime has changed."""

    domain: str
    operator: str
    before: int
    after: int


class Fusion(Frozen):
    """What ONNX Runtime made of the graph on this machine, without running it."""

    status: Literal["done", "skipped", "failed"]
    reason: str | None = None
    """Why it was skipped, or ONNX Runtime's message."""
    changed: tuple[OperatorChange, ...] = ()
    unfused: tuple[str, ...] = ()
    """Layers that are left as DequantizeLinear in front of a float operator: slow."""
    folded: tuple[str, ...] = ()
    """Layers whose codes became floats while loading."""


class Machine(Frozen):
    """What decides here between fast, slow and wrong."""

    cpu: str
    instruction_sets: tuple[str, ...]
    is_arm: bool
    has_vnni: bool
    """Whether products of unsigned by signed bytes are exact."""
    onnxruntime: str | None
    """Version; null where it is not installed."""
    providers: tuple[str, ...]


class Hazard(Frozen):
    """Something to know before shipping or running the model."""

    code: str
    """Short and stable, for scripts: ``saturates``, ``float-embedding``."""
    severity: Severity
    message: str
    remedy: str
    layers: tuple[str, ...] = ()
    """Layers concerned, where it is about layers."""


class Inspection(Frozen):
    """Everything found in one model."""

    path: str
    kind: Literal["onnx", "checkpoint", "safetensors"]
    sizes: Sizes
    onnx: OnnxFacts | None = None
    checkpoint: CheckpointFacts | None = None
    quantized: tuple[QuantizedTensor, ...]
    floats: tuple[FloatTensor, ...]
    quantship: QuantshipFacts | None = None
    metadata: dict[str, str]
    """Other metadata of the file, as it is."""
    fusion: Fusion | None = None
    """Null for what ONNX Runtime does not run."""
    machine: Machine
    hazards: tuple[Hazard, ...]
