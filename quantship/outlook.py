"""Will it run, and faster? What the terminal says of a recipe's models before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from rich.text import Text

from quantship import hardware
from quantship.exporters import advice
from quantship.hardware import Gpu
from quantship.quant import gpu_kernels
from quantship.recipe import consent, exports, searches
from quantship.recipe.exports import Export
from quantship.recipe.language import FinetuneStep, QatStep, QuantizeStep, Recipe

CAUTION = "yellow"
QUIET = "dim"


def full(recipe: Recipe) -> Text | None:
    """This machine, what it lacks for each checkpoint, and of each export its lowering and why.

    Args:
        recipe: As ``recipe.load`` returns it.

    Returns:
        None where there is nothing to say: no exports, and nothing to beware of.
    """
    lines = [Text.assemble(("This machine: ", QUIET), f"{hardware.kind()}: {hardware.describe()}")]
    for name, found in _lacks(recipe).items():
        lines.append(Text(f"{name}:", "bold"))
        lines += [caution(line) for line in found]
    for export in exports.find(recipe):
        why = _reason(export)
        lines.append(Text.assemble((export.name, "bold"), f": {_form(export)}: {why}"))
        lines += [caution(line) for line in _warnings(export)]
    return Text("\n").join(lines) if len(lines) > 1 else None


def short(recipe: Recipe) -> Text | None:
    """A line each for what to beware of, and for an export with its lowering; None: nothing."""
    lines = list(_short_lines(recipe))
    return Text("\n").join(lines) if lines else None


def code(recipe: Recipe) -> Text | None:
    """What the recipe may run only with the user's leave; None: nothing."""
    needed = consent.needed(recipe)
    lines = [caution(f"{one}: quantship run asks for {consent.FLAG}") for one in needed]
    return Text("\n").join(lines) if lines else None


def caution(line: str) -> Text:
    """A warning as a line of the terminal, below what it is about."""
    return Text(f"  ! {line}", CAUTION)


def _short_lines(recipe: Recipe) -> Iterator[Text]:
    for name, found in _lacks(recipe).items():
        yield Text.assemble(f"{name}:", _counted(len(found)))
    for export in exports.find(recipe):
        yield Text.assemble(f"{export.name}: {_form(export)}", _counted(len(_warnings(export))))


def _counted(number: int) -> Text:
    words = f"{number} warning{'s' if number > 1 else ''}; quantship check shows them"
    return Text(f"  {words}", CAUTION) if number else Text()


def _lacks(recipe: Recipe) -> dict[str, list[str]]:
    """What this machine cannot do for the checkpoints of a recipe, by step; and for the run."""
    installed = hardware.installed_gpu()
    # PyTorch, which takes seconds to import, is asked only where there is a driver.
    gpu = hardware.gpu() if installed is not None else None
    found = _of_run(recipe, installed, gpu)
    table = searches.table(recipe)
    for step in recipe.steps:
        quantizes = isinstance(step, QuantizeStep) or (
            isinstance(step, QatStep) and step.output == "quantized"
        )
        scheme = table.get(str(getattr(step, "scheme", None)))
        if quantizes and scheme is not None:
            packed, mslk = bool(step.packed), gpu_kernels.has_mslk()  # type: ignore[union-attr]
            lines = gpu_kernels.unserved(scheme, gpu, packed=packed, mslk=mslk)
            found |= {str(step.name): lines} if lines else {}
    return found


def _of_run(recipe: Recipe, installed: str | None, gpu: Gpu | None) -> dict[str, list[str]]:
    """What becomes of a run on a machine with a GPU that is not used, or is an old one."""
    if installed is None:
        return {}
    if gpu is None:
        return {
            "this run": [
                f"PyTorch cannot use the {installed} of this machine: it is a build for CPUs, or "
                "the driver is too old for it; everything runs on the CPU"
            ]
        }
    compiles = (recipe.benchmark is not None and recipe.benchmark.compile) or any(
        isinstance(step, FinetuneStep | QatStep) and step.compile for step in recipe.steps
    )
    lines = gpu_kernels.untrained(gpu, compiles=compiles)
    return {"this run": lines} if lines else {}


def _form(export: Export) -> str:
    if export.lowering is None:
        return export.format
    form = f"{export.lowering} for {export.target}"
    return form if export.scheme is None else f"{export.scheme.name} as {form}"


def _reason(export: Export) -> str:
    if export.lowering is None:
        return "the format has a form of its own, the same for all machines"
    return advice.reason(export.lowering, export.scheme, export.target)


def _warnings(export: Export) -> tuple[str, ...]:
    if export.lowering is None:
        return ()
    found = advice.warnings(export.lowering, export.scheme, export.target, hardware.kind())
    if export.target != "cuda" or hardware.installed_gpu() is None:
        return found
    return found if _has_onnxruntime_gpu() else (*found, _NO_PROVIDER)


_NO_PROVIDER = (
    "onnxruntime here has no CUDA provider, so it runs on the CPU: install onnxruntime-gpu in "
    "place of onnxruntime"
)


def _has_onnxruntime_gpu() -> bool:
    try:
        metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return False
    return True
