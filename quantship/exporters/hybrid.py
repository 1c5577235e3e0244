"""One model with two branches: a prompt takes the one, a token after the other takes the other.

Few tokens are bound by memory, and MatMulNBits reads no more bytes than codes have. Many tokens are
bound by arithmetic, and there integers times integers are faster, or 8-bit blocks are faster than
4-bit ones. Both branches read the one set of codes in the file: what the prompt's branch wants in
another order or width, nodes without inputs make of it, which onnxruntime computes once when it
loads the model. So the file is as small as that of ``nbits``; the memory is that of both.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import count

import numpy as np
import onnx_ir as ir

from quantship.exporters import nbits, qgemm
from quantship.exporters.drawing import IrDrawing
from quantship.exporters.graph import Graph, Layer
from quantship.exporters.lowering import PromptForm, arithmetic, prompt_form
from quantship.exporters.targets import multiplies_signed_exactly

PROMPT, TOKEN = "prompt", "token"
"""Names of the branches, and what the names of their values begin with."""
TOKENS_INPUT, CACHE = "input_ids", "past_key_values."
FEW_TOKENS = 16
"""Up to so many tokens at once, in all sequences together, are no prompt."""
HALF = 8
"""4-bit code that stands for zero."""


def branch(model: ir.Model, graph: Graph) -> None:
    """Turn a graph of MatMulNBits layers into one with two branches, where they would differ.

    One without a KV cache, which takes whole inputs only, keeps a single branch.

    Args:
        model: The model, whose graph is changed.
        graph: What drew it.
    """
    if all(_form(layer, graph) == "nbits" for layer in graph.layers.values()):
        return
    main = model.graph
    main.sort()
    if not any(str(value.name).startswith(CACHE) for value in main.inputs):
        _lower(main, [], graph)
        graph.arithmetic, graph.prompt_arithmetic = graph.prompt_arithmetic, Counter()
        return
    running = _running(main)
    prompt, token = (_copy(running, main.outputs, name) for name in (PROMPT, TOKEN))
    fixed = [node for node in main if node not in set(running)]
    outer = [*main.inputs, *main.initializers.values()]
    _lower(prompt, outer + [one for node in fixed for one in node.outputs], graph)
    tokens = next(value for value in main.inputs if value.name == TOKENS_INPUT)
    outputs = list(main.outputs)
    main.outputs.clear()
    main.remove(running, safe=True)
    few = ir.Value(name="few_tokens", const_value=ir.tensor(np.array(FEW_TOKENS, np.int64)))
    main.register_initializer(few)
    size = ir.node("Size", [tokens], outputs=[ir.Value(name="num_tokens")])
    many = ir.node("Greater", [size.outputs[0], few], outputs=[ir.Value(name="is_prompt")])
    chosen = ir.node(
        "If",
        [many.outputs[0]],
        {"then_branch": prompt, "else_branch": token},
        outputs=[ir.Value(name=one.name, shape=one.shape, type=one.type) for one in outputs],
        name="branches",
    )
    main.extend([size, many, chosen])
    main.outputs.extend(chosen.outputs)


def _form(layer: Layer, graph: Graph) -> PromptForm:
    """Form of a layer where it multiplies a prompt."""
    part = layer.parts[0]
    stored = nbits.layout(graph, part)
    return prompt_form(
        part.activation,
        graph.target,
        container_bits=stored.container_bits,
        grouped=part.codes.scale_OG.shape[1] > 1,
        zero_points=stored.zero_points,
    )


def _running(main: ir.Graph) -> list[ir.Node]:
    """The nodes that depend on the model's inputs: the others stay where both branches see them."""
    depends: set[ir.Value | None] = set(main.inputs)
    running = []
    for node in main:
        if depends & set(node.inputs):
            depends.update(node.outputs)
            running.append(node)
    return running


def _copy(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], name: str) -> ir.Graph:
    """Nodes as a graph of their own, which reads values of the graph around it."""
    inner: dict[ir.Value | None, ir.Value | None] = {}
    copies = []
    numbers = count()  # nodes keep their names, and values need none that takes room
    for node in nodes:
        copied = ir.Node(
            node.domain,
            node.op_type,
            [inner.get(one, one) for one in node.inputs],
            node.attributes.values(),
            outputs=[ir.Value(name=one.name and f"{name}/{next(numbers)}") for one in node.outputs],
            name=f"{name}/{node.name}",
        )
        copies.append(copied)
        inner.update(zip(node.outputs, copied.outputs, strict=True))
    results = [one for one in (inner[output] for output in outputs) if one is not None]
    for result, output in zip(results, outputs, strict=True):
        result.shape, result.type = output.shape, output.type
    return ir.Graph([], results, nodes=copies, name=name)


def _lower(prompt: ir.Graph, outer: Sequence[ir.Value], graph: Graph) -> None:
    """Give the layers of the prompt's branch the forms that are fast there."""
    drawing = IrDrawing(prompt, {str(one.name): one for one in outer})
    inside = dataclasses.replace(graph, drawing=drawing, quantized_inputs={})
    found = [node for node in prompt if node.op_type == "MatMulNBits"]
    for number, node in enumerate(found):
        layer = graph.layers[str(node.name).removeprefix(f"{PROMPT}/")]
        form, part = _form(layer, graph), layer.parts[0]
        done = arithmetic("integer" if form == "integer" else "nbits", part.activation)
        graph.prompt_arithmetic[done] += len(layer.parts)
        if form == "nbits":
            continue
        drawing.move_to(node)
        name, given = f"{PROMPT}/layer/{number}", _name(node.inputs[0])
        output = f"{name}/output"
        if form == "integer":
            graph.signed_weights |= multiplies_signed_exactly(graph.target)
            qgemm.matmul(inside, layer, name, given, output)
        else:
            codes, zeros = _widened(inside, layer, name)
            stored = (codes, _name(node.inputs[2]), zeros)
            nbits.multiply(inside, layer.parts, stored, 8, given, output)
        drawing.replace(node, output)


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name


def _widened(graph: Graph, layer: Layer, name: str) -> tuple[str, str]:
    """The 4-bit codes of a MatMulNBits layer, one a byte, and their zero points."""
    block = nbits.layout(graph, layer.parts[0]).block_size
    packed, last = f"{layer.name}.codes", graph.constant("INT64", [-1])
    low = graph.node("BitwiseAnd", [packed, graph.constant("UINT8", 15)], f"{name}/low")
    four = graph.constant("UINT8", 4)
    high = graph.node("BitShift", [packed, four], f"{name}/high", direction="RIGHT")
    pairs = [graph.node("Unsqueeze", [half, last], f"{half}/half") for half in (low, high)]
    both = graph.node("Concat", pairs, f"{name}/both", axis=-1)
    shape = graph.constant("INT64", [layer.num_out, -1, block])
    codes = graph.node("Reshape", [both, shape], f"{name}/bytes")
    width = layer.parts[0].codes.codes_OI.shape[1]
    blocks = graph.constant("INT64", [layer.num_out, -(-width // block)])
    zeros = graph.node("Expand", [graph.constant("UINT8", HALF), blocks], f"{name}/zeros")
    return codes, zeros
