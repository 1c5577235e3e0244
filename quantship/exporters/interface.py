"""How a decoder's graph meets those who feed it: the shapes that it states, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

CACHE = ("past_key_values.", "present.")
"""How the names of the KV cache begin, going in and coming out."""
LENGTHS = 5
"""Which input of GroupQueryAttention says how many tokens a sequence has."""
NUM_LOGITS = "num_logits_to_keep"
"""Optional input, by transformers.js's name: of how many last positions to compute logits; 0: all.
"""
END = 2**63 - 1
LEFT_PADDING = "this model takes prompts of one length, or padded on the right"
"""Name of the node that fails where a mask begins with padding; runtimes show it."""


def declare_cache(graph: ir.Graph, head_size: int) -> None:
    """State the width of the KV cache in a decoder's inputs and outputs.

    The model builder leaves it open, for caches that are quantized. transformers.js makes its
    first, empty cache of the shape that it finds there.
    """
    for value in (*graph.inputs, *graph.outputs):
        if value.name is not None and value.name.startswith(CACHE) and value.shape is not None:
            value.shape = ir.Shape([*value.shape[:-1], head_size])


def ask_for_logits(graph: ir.Graph) -> None:
    """Make the number of positions whose logits are computed an input with a default.

    Who generates text needs the last position's alone, and the head is a large part of a prompt's
    work. An initializer that is an input as well is what the ONNX format has for an input that need
    not be given, so clients that do not know of it get all logits.
    """
    users = [node for node in graph for one in node.inputs if one and one.name == NUM_LOGITS]
    number = _constant(graph, NUM_LOGITS, np.array([0], np.int64))
    for node in users:
        node.replace_input_with(0, number)
    graph.inputs.append(number)
    logits = next(value for value in graph.outputs if value.name == "logits")
    assert logits.shape is not None
    logits.shape = ir.Shape([logits.shape[0], "num_logits", logits.shape[2]])


def refuse_left_padding(graph: ir.Graph) -> None:
    """Make a decoder fail on a mask that begins with padding, where it would be silently wrong.

    GroupQueryAttention counts the ones of a mask and takes the tokens from the first on, so that it
    would read the padding and not the end of the prompt. The ``generate`` of transformers and of
    transformers.js wants padding on the left.
    """
    found = [node for node in graph if node.op_type == "GroupQueryAttention"]
    lengths = {value for node in found if (value := node.inputs[LENGTHS]) is not None}
    masks = [value for value in graph.inputs if value.name == "attention_mask"]
    if not lengths or not masks:
        return
    one = _constant(graph, "mask/one", np.array([1], np.int32))
    zero = _constant(graph, "mask/first", np.array(0, np.int64))
    present = _constant(graph, "mask/present", np.array(1, np.int64))
    first = _node(graph, "Gather", [masks[0], zero], "mask/is_first_present", axis=1)
    padded = _node(graph, "Sub", [present, first], "mask/is_padded")
    # Of one number, the second is out of bounds: the way to fail that every runtime's CPU has.
    guard = _node(graph, "Gather", [one, padded], LEFT_PADDING, axis=0)
    for value in lengths:
        users = [(node, index) for node, index in value.uses() if node in found]
        guarded = _node(graph, "Mul", [value, guard], f"{value.name}/guarded")
        for node, index in users:
            node.replace_input_with(index, guarded)
    graph.sort()


def _node(
    graph: ir.Graph, op: str, inputs: list[ir.Value], name: str, **attributes: int
) -> ir.Value:
    node = ir.node(op, inputs, attributes, name=name)
    output: ir.Value = node.outputs[0]
    output.name = f"{name}/output_0"
    graph.append(node)
    return output


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value
