"""Parameters and bytes of a model, added up."""

from __future__ import annotations

from quantship.inspection.locate import Found
from quantship.inspection.report import FloatTensor, QuantizedTensor, Sizes


def count(
    quantized: tuple[QuantizedTensor, ...],
    floats: tuple[FloatTensor, ...],
    weight_bytes: int,
    file_bytes: int,
    found: Found,
) -> Sizes:
    """Add up what was found.

    Args:
        quantized: Quantized weights.
        floats: Other parameters.
        weight_bytes: Of all stored tensors.
        file_bytes: Of the model's files.
        found: Where these lie.
    """
    num_quantized = sum(one.num_parameters for one in quantized)
    num_parameters = num_quantized + sum(one.num_parameters for one in floats)
    quantized_bytes = sum(one.size_bytes for one in quantized)
    float_bytes = sum(one.size_bytes for one in floats)
    directory = found.directory
    return Sizes(
        num_parameters=num_parameters,
        num_quantized=num_quantized,
        quantized_bytes=quantized_bytes,
        float_bytes=float_bytes,
        other_bytes=weight_bytes - quantized_bytes - float_bytes,
        weight_bytes=weight_bytes,
        file_bytes=file_bytes,
        directory_bytes=(
            sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
            if directory
            else None
        ),
        bits_per_parameter=8 * weight_bytes / num_parameters if num_parameters else None,
    )
