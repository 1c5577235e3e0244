"""This machine, as far as it decides how a model runs."""

from __future__ import annotations

from importlib import metadata

from quantship import hardware
from quantship.inspection.report import Machine


def here() -> Machine:
    """What this machine is and what runs ONNX on it."""
    version, providers = None, ()
    try:
        version = metadata.version("onnxruntime")
        import onnxruntime

        providers = tuple(onnxruntime.get_available_providers())
    except (metadata.PackageNotFoundError, ImportError):
        pass
    return Machine(
        cpu=hardware.cpu_model(),
        instruction_sets=hardware.instruction_sets(),
        is_arm=hardware.is_arm(),
        has_vnni=hardware.has_vnni(),
        onnxruntime=version,
        providers=providers,
    )
