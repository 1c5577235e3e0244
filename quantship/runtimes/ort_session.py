"""Open an ONNX model where it was made to run: on the CPU, or on a GPU by the CUDA provider."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import onnxruntime as ort

from quantship import hardware
from quantship.runtimes import built_for
from quantship.runtimes.base import Device

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
PACKAGE = "onnxruntime-gpu"


def open_session(path: Path, threads: int | None = None) -> tuple[Any, Device]:
    """A session with the model of a directory, and where it computes.

    A model that was made for ``cuda`` computes on a GPU where onnxruntime can, else on the CPU. All
    others compute on the CPU: for that they were made.

    Args:
        path: Directory with ``model.onnx``.
        threads: Threads to compute with; None: the runtime's own choice.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(path / "model.onnx", options, providers=_providers(path))
    properties = session.get_modelmeta().custom_metadata_map
    built = built_for.parse(properties)
    device: Device = "cuda" if CUDA in session.get_providers() else "cpu"
    if device == "cpu":
        built_for.heed(properties, path)
        if built is not None and built.target == "cuda":
            _tell(path)
    return session, device


def _providers(path: Path) -> list[str | tuple[str, dict[str, str]]]:
    """Execution providers for a model, the one to ask first first, with their options."""
    # The model is looked into, which costs time and memory, only where the answer matters.
    if CUDA not in ort.get_available_providers():
        return [CPU]
    built = built_for.read(path)
    if built is None or built.target != "cuda":
        return [CPU]
    if hasattr(ort, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()  # of CUDA and cuDNN, from the wheels that PyTorch came with
    return [(CUDA, {"device_id": str(_gpu())}), CPU]


def _gpu() -> int:
    """The GPU of this process; several on one machine have one each, as PyTorch knows."""
    torch = sys.modules.get("torch")  # where it is not there yet, nobody has chosen one
    return torch.cuda.current_device() if torch is not None and torch.cuda.is_available() else 0


def _tell(path: Path) -> None:
    """Warn, as Python warns, where a model for a GPU runs on the CPU of a machine that has one."""
    gpu = hardware.installed_gpu()
    if gpu is None:
        return
    reason = (
        "could not start its CUDA provider, which needs CUDA and cuDNN of the versions that it was "
        "built for"
        if CUDA in ort.get_available_providers()
        else f"has no CUDA provider here: install {PACKAGE} in place of onnxruntime"
    )
    warnings.warn(
        f"{path}: made for cuda, it runs on the CPU although there is an {gpu}: onnxruntime "
        f"{reason}",
        UserWarning,
        stacklevel=4,
    )
