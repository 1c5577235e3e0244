"""Will it be faster here? Why a lowering, and what to know about it, before there is a model.

Figures are of SmolLM2-135M on two cores with AVX2 and without VNNI, by the float32 ONNX model of
the same run. Elsewhere nothing is said that was not measured: the benchmark is there to do so.
"""

from __future__ import annotations

from collections.abc import Iterator

from quantship import hardware
from quantship.exporters.lowering import Lowering, choose, prompt_form, reject
from quantship.exporters.targets import Target, multiplies_signed_exactly
from quantship.quant.scheme import LayerFormat, Scheme
from quantship.runtimes import built_for
from quantship.runtimes.built_for import BuiltFor

WHERE = "SmolLM2-135M on two cores with AVX2, without VNNI"


def reason(lowering: Lowering, scheme: Scheme | None, target: Target) -> str:
    """Why this lowering, in one sentence without its full stop.

    Args:
        lowering: Of the model.
        scheme: Scheme of the model; None for a float model.
        target: Machine that the model is for.
    """
    if scheme is None:
        return "a float model has no integers to lower"
    best = choose(scheme, target)
    if lowering != best:
        return f"the recipe asks for it; auto is {best} for {target}"
    if target == "portable":
        return "standard operators, which every ONNX runtime reads"
    return _WHY[lowering](scheme)


def warnings(
    lowering: Lowering, scheme: Scheme | None, target: Target, machine: hardware.Kind | None = None
) -> tuple[str, ...]:
    """What makes a model slow, large or inexact on its target, and what does so on a machine.

    Args:
        lowering: Of the model.
        scheme: Scheme of the model; None for a float model.
        target: Machine that the model is for.
        machine: Machine that it is made or run on; None: leave out what depends on it.
    """
    if scheme is None:
        return ()
    found = [*_of_target(lowering, scheme, target)]
    if machine is not None:
        signed = has_signed_weights(lowering, scheme, target)
        found += elsewhere(BuiltFor(lowering, target, signed), machine)
    return tuple(found)


def elsewhere(built: BuiltFor, machine: hardware.Kind) -> tuple[str, ...]:
    """What becomes of a model on a machine that it may not have been made for."""
    wrong = built_for.inexact(built, machine)
    return (*(() if wrong is None else (wrong,)), *built_for.slower(built, machine))


def has_signed_weights(lowering: Lowering, scheme: Scheme, target: Target) -> bool:
    """Whether signed bytes of weights will meet unsigned bytes of inputs in some layer."""
    if lowering == "hybrid":
        return multiplies_signed_exactly(target) and any(
            _prompt_form(one, target) == "integer" for one in _layers(scheme)
        )
    signed = target == "cuda" or multiplies_signed_exactly(target)
    return (
        lowering == "qdq"
        and signed
        and any(one.activation and not _grouped(one) for one in _layers(scheme))
    )


def _of_target(lowering: Lowering, scheme: Scheme, target: Target) -> Iterator[str]:
    layers = list(_layers(scheme))
    wide = any(_prompt_form(one, target) == "wide nbits" for one in layers)
    if lowering == "nbits" and target == "x86":
        yield from _slow_prompts(scheme, target)
    if lowering == "nbits" and wide:
        yield "hybrid reads prompts at 1.2 × this speed, for a byte a code in memory besides"
    if lowering == "integer" and target == "x86" and _has_token_inputs(scheme):
        yield f"integer decodes at 1.8 × the speed of float32, and nbits at 2.0 × ({WHERE})"
    if lowering == "hybrid" and any(_prompt_form(one, target) != "nbits" for one in layers):
        yield "hybrid holds codes in memory twice, for prompts at a byte each; in the file once"
    if lowering == "qdq" and any(one.activation and _grouped(one) for one in layers):
        yield (
            "qdq leaves inputs in float where a row has several scales, and not quantized as in "
            "training"
        )
    if target in ("cuda", "arm"):
        yield f"nothing was measured on {target}: benchmark it there"


def _slow_prompts(scheme: Scheme, target: Target) -> Iterator[str]:
    bits = {one.weight.bits > 4 for one in _layers(scheme)}
    if True in bits:
        yield (
            "slower than float32 at prompts: 8-bit nbits read them at 0.65 × its speed "
            f"({WHERE}){_instead(scheme, target)}"
        )
    if False in bits:
        yield f"slower than float32 at prompts: 4-bit nbits read them at 0.90 × its speed ({WHERE})"


def _instead(scheme: Scheme, target: Target) -> str:
    best = choose(scheme, target)
    return "" if best == "nbits" else f"; {best} is faster there"


def _why_hybrid(scheme: Scheme) -> str:
    return (
        "of 8-bit codes with quantized inputs, nbits is the fastest token after token and integer "
        "at prompts: each has a branch"
    )


def _why_integer(scheme: Scheme) -> str:
    if scheme.is_static:
        return "input ranges are static, and nbits would find its own at run time"
    return (
        "inputs share a scale or are centred on zero, which blocks would not do: so they are "
        "quantized as in training"
    )


def _why_nbits(scheme: Scheme) -> str:
    packed = all(one.weight.bits <= 4 for one in _layers(scheme))
    return "decoding is bound by memory, and it reads no more bytes than the codes have" + (
        ", two a byte" if packed else ""
    )


def _why_qdq(scheme: Scheme) -> str:
    return f"no other form carries the scheme: {reject(scheme, 'nbits')}"


_WHY = {
    "hybrid": _why_hybrid,
    "integer": _why_integer,
    "nbits": _why_nbits,
    "qdq": _why_qdq,
}


def _layers(scheme: Scheme) -> Iterator[LayerFormat]:
    """Formats of the linear layers."""
    yield LayerFormat(weight=scheme.weight, activation=scheme.activation)
    for override in scheme.overrides:
        if override.weight is not None:
            yield LayerFormat(weight=override.weight, activation=override.activation)


def _grouped(layer: LayerFormat) -> bool:
    return layer.weight.group_size is not None


def _prompt_form(layer: LayerFormat, target: Target) -> str:
    return prompt_form(
        layer.activation,
        target,
        container_bits=4 if layer.weight.bits <= 4 else 8,
        grouped=_grouped(layer),
        zero_points=not layer.weight.symmetric,
    )


def _has_token_inputs(scheme: Scheme) -> bool:
    given = (one.activation for one in _layers(scheme))
    return any(one is not None and one.granularity == "per_token" for one in given)
