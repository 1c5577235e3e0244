"""GPTQ, AWQ and SmoothQuant by LLM Compressor, in its own environment.

pip install llmcompressor; the request is ``peers_part``'s.
"""

from __future__ import annotations

from typing import Any

from shared import sequences, serve


def quantize(model: Any, request: dict[str, Any]) -> Any:
    """The model with its weights on the grid, and fake-quantized inputs where they are static."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader

    if not torch.accelerator.is_available():
        # Its AWQ pins memory for an accelerator whether there is one or not (0.14), and fails.
        IntermediatesCache.pin_memory = lambda self, *_, **__: None

    batches = sequences(request)
    loader = DataLoader(batches, batch_size=1, shuffle=False, collate_fn=lambda rows: rows[0])
    return oneshot(
        model=model,
        dataset=loader,
        recipe=_recipe(request),
        num_calibration_samples=len(batches),
        max_seq_length=max(len(ids) for ids in request["calibration"]),
        pipeline="sequential",
    )


def _recipe(request: dict[str, Any]) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    weights: dict[str, Any] = {"num_bits": request["bits"], "type": "int", "symmetric": True}
    weights |= (
        {"strategy": "group", "group_size": request["group_size"]}
        if request["group_size"]
        else {"strategy": "channel"}
    )
    group: dict[str, Any] = {"targets": ["Linear"], "weights": weights}
    if request["static_inputs"]:
        group["input_activations"] = {
            "num_bits": 8,
            "type": "int",
            "symmetric": False,
            "strategy": "tensor",
            "dynamic": False,
            "observer": "static_minmax",
        }
    common: dict[str, Any] = {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    if request["algorithm"] == "gptq":
        ordered = "static" if request["act_order"] else None
        return [GPTQModifier(dampening_frac=request["damping"], actorder=ordered, **common)]
    if request["algorithm"] == "awq":
        return [AWQModifier(n_grid=request["grid_points"]), QuantizationModifier(**common)]
    if request["algorithm"] == "smoothquant":
        smooth = SmoothQuantModifier(smoothing_strength=request["strength"])
        return [smooth, QuantizationModifier(**common)]
    assert request["algorithm"] == "rtn"
    return [QuantizationModifier(**common)]


if __name__ == "__main__":
    serve(quantize, "llmcompressor", "compressed-tensors")
