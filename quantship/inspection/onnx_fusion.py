"""What ONNX Runtime makes of a graph on this machine: a session is created, and never run."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import onnx_ir as ir

from quantship.inspection import onnx_layers
from quantship.inspection.onnx_file import OnnxFile
from quantship.inspection.report import Fusion, OperatorChange
from quantship.reporting.formatting import size

OPTIMIZED, WEIGHTS = "optimized.onnx", "weights"
EXTERNAL_FROM_BYTES = 1024
FATAL = 4

Kernels = dict[str, tuple[str, ...]]
"""Operators that read a quantized tensor after all optimizations, by the tensor's name."""


def fused(file: OnnxFile, codes: Collection[str]) -> tuple[Fusion, Kernels]:
    """Let ONNX Runtime optimize a model for this CPU and compare the operators.

    Args:
        file: The model.
        codes: Names of the tensors with quantized codes.
    """
    short = _too_little_memory(file)
    if short is not None:
        return Fusion(status="skipped", reason=short), {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            _optimize(file.path, Path(folder))
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own classes have no common base
            return Fusion(status="failed", reason=first_sentence(str(error))), {}
        optimized = ir.load(Path(folder) / OPTIMIZED)
    kernels = _kernels(file.model, optimized, codes)
    unfused = tuple(
        name
        for name, operators in kernels.items()
        if any(operator.startswith(onnx_layers.QDQ) for operator in operators)
    )
    folded = tuple(name for name in codes if name not in kernels)
    changed = _changes(operators(file.model), operators(optimized))
    return Fusion(status="done", changed=changed, unfused=unfused, folded=folded), kernels


def operators(model: ir.Model) -> Counter[tuple[str, str]]:
    """How often each operator occurs, by domain and name; constants are no operators."""
    nodes = model.graph.all_nodes()
    return Counter(
        ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
        for node in nodes
        if node.op_type != "Constant"
    )


def refusal(ir_version: int, opsets: dict[str, int]) -> str | None:
    """Why the installed ONNX Runtime loads no model of these versions, or None where it does."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "probe", ends[:1], ends[1:]
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    probe = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    try:
        ort.InferenceSession(probe.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own classes have no common base
        return first_sentence(str(error))
    return None


def first_sentence(message: str) -> str:
    """ONNX Runtime's message without its prefixes and its C++ signature."""
    line = next((line for line in message.splitlines() if line.strip()), "no message")
    head, found, tail = line.rpartition(") ")
    if found and "/onnxruntime_src/" in head:
        line = tail
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", line).strip()[:300]


def _optimize(path: Path, folder: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    options.optimized_model_filepath = str(folder / OPTIMIZED)
    # Only the graph is wanted: its weights, rearranged and as large as the model, go nowhere.
    if os.name == "posix":
        (folder / WEIGHTS).symlink_to(os.devnull)
    entries = {
        "session.optimized_model_external_initializers_file_name": WEIGHTS,
        "session.optimized_model_external_initializers_min_size_in_bytes": EXTERNAL_FROM_BYTES,
        "session.disable_prepacking": 1,  # a second copy of the weights, for runs
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, str(value))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _too_little_memory(file: OnnxFile) -> str | None:
    import psutil

    free, needed = int(psutil.virtual_memory().available), file.size_bytes
    if needed <= free:
        return None
    return f"a session needs {size(needed)} of memory or more, and {size(free)} are free"


def _kernels(before: ir.Model, after: ir.Model, codes: Collection[str]) -> Kernels:
    forms = onnx_layers.forms(before, codes)
    found: dict[str, list[str]] = {}
    for name, readers in onnx_layers.readers_of_codes(after).items():
        origin = name if name in codes else forms.get(name) or _ending_cut(name, codes)
        if origin is not None:
            found.setdefault(origin, []).extend(readers)
    return {name: tuple(dict.fromkeys(readers)) for name, readers in found.items()}


def _ending_cut(name: str, codes: Collection[str]) -> str | None:
    """Fusions call what they have transposed or packed by the old name and an ending."""
    fitting = [one for one in codes if name.startswith(f"{one}_")]
    return max(fitting, key=len, default=None)


def _changes(
    before: Counter[tuple[str, str]], after: Counter[tuple[str, str]]
) -> tuple[OperatorChange, ...]:
    changed = [
        OperatorChange(domain=key[0], operator=key[1], before=before[key], after=after[key])
        for key in sorted(before | after)
        if before[key] != after[key]
    ]
    return tuple(sorted(changed, key=lambda one: -abs(one.after - one.before)))
