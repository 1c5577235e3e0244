"""Every algorithm by the word that a recipe calls it by."""

from __future__ import annotations

from types import ModuleType

from quantship.algorithms import awq, gptq, hqq, rtn, smoothquant

ALGORITHMS: dict[str, ModuleType] = {
    "rtn": rtn,
    "gptq": gptq,
    "awq": awq,
    "smoothquant": smoothquant,
    "hqq": hqq,
}
"""Modules with ``NEEDS_DATA``, ``Options``, ``reject(scheme, options)`` and ``quantize(block,
options, find_grid)``, which settles every layer of a block and returns remarks for the report."""

Options = awq.Options | gptq.Options | hqq.Options | rtn.Options | smoothquant.Options
