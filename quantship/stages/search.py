"""Choose a format for each layer under a constraint, and leave that as a scheme."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantship import hardware
from quantship.artifact import Facts
from quantship.frozen import Frozen
from quantship.job import Job
from quantship.quant.scheme import Scheme
from quantship.recipe.language import SearchStep

if TYPE_CHECKING:
    from quantship.quant.choices import Allocation, Layer
    from quantship.search.choose import Problem
    from quantship.search.sensitivity import Damage, Predictions, Rounding

REVISION = 1
SCHEME, SENSITIVITY = "scheme.json", "sensitivity.json"


class Settings(Frozen):
    """What a search depends on, beside its inputs."""

    step: SearchStep
    base: Scheme
    candidates: tuple[Scheme, ...]
    as_large_as: Scheme | None
    """Scheme whose size is the limit."""
    machine: dict[str, str]
    """What times depend on; empty where none are measured."""


def settings_of(step: SearchStep, rows: Mapping[str, Scheme]) -> Settings:
    """What a step of a recipe asks for.

    Args:
        step: The step, its scheme filled in.
        rows: Schemes by name.
    """
    measures = step.max_latency_ms is not None
    return Settings(
        step=step,
        base=rows[str(step.scheme)],
        candidates=tuple(rows[name] for name in step.candidates),
        as_large_as=rows[step.max_bytes] if isinstance(step.max_bytes, str) else None,
        machine={"cpu": hardware.cpu_model(), **hardware.versions()} if measures else {},
    )


def read_scheme(path: Path, name: str) -> Scheme:
    """The scheme that a search has left in its directory, under a name."""
    values = json.loads((path / SCHEME).read_text())
    return Scheme.model_validate({**values, "name": name})


def run(job: Job) -> Facts:
    """Write ``scheme.json``, and what was measured of each layer to ``sensitivity.json``."""
    from quantship.data.calibration import sequences
    from quantship.models import load_float
    from quantship.quant.choices import layers_of, scheme_of, uniform
    from quantship.search import sensitivity
    from quantship.search.choose import Problem, front, least_cost, least_harm
    from quantship.search.limits import UNITS, limits_of, within_bytes
    from quantship.search.probe import Files

    settings: Settings = job.settings
    step, data = settings.step, job.inputs["data"].path
    model: Any = load_float(job.inputs["model"].path).eval()
    candidates = {one.name: one for one in settings.candidates}
    layers = layers_of(model, settings.base, candidates, embedding=step.embedding)
    files = Files(job.inputs["model"].path, data, step, settings.base, layers, job.out / "probe")
    limits = limits_of(files, settings.as_large_as)
    batches = sequences(data, step.calibration.sequences, step.calibration.seed)
    calibration = sensitivity.read(batches)
    rounding = sensitivity.Rounding(step.range, step.percentile)
    predictions = sensitivity.Predictions(model, calibration)
    harm = _harm(job, predictions, calibration, layers, rounding)
    fixed_harm = math.fsum(
        number for one in layers if not one.is_chosen for number in harm[one.name].values()
    )
    chosen_harm = {one.name: harm[one.name] for one in layers if one.is_chosen}
    problem = Problem(chosen_harm, limits.costs, fixed_harm, limits.fixed_cost)

    def measure(chosen: Allocation) -> Damage:
        formats = {
            one.name: one.formats[chosen.get(one.name, next(iter(one.formats)))] for one in layers
        }
        return predictions.of(formats, rounding)

    attempts: list[Any] = []
    size_bytes: int | None = None
    if step.max_perplexity_increase is not None:
        allowed = math.log1p(float(step.max_perplexity_increase))
        solution, attempts = least_cost(problem, allowed, measure)
    elif step.max_bytes is not None:
        solution, size_bytes = within_bytes(problem, int(limits.limit), files)
    else:
        solution = least_harm(problem, limits.limit)
    rest = limits.fixed_cost if step.max_perplexity_increase is not None else fixed_harm
    scheme = scheme_of(settings.base, step.name or "search", layers, solution.chosen)
    (job.out / SCHEME).write_text(scheme.model_dump_json(indent=2) + "\n")
    (job.out / SENSITIVITY).write_text(json.dumps(harm, indent=1, allow_nan=False) + "\n")
    uniforms = {name: uniform(layers, name) for name in candidates}
    return {
        "constraint": step.constraint,
        "limit": limits.limit,
        "unit": UNITS[step.constraint],
        "runtime": step.runtime,
        "measure": step.measure,
        "sequences": len(calibration),
        "tokens": predictions.num_tokens,
        "size_bytes": size_bytes,
        "result": _described(None, solution.chosen, layers, problem, measure),
        "uniform": [
            _described(name, chosen, layers, problem, measure)
            for name, chosen in uniforms.items()
            if chosen is not None
        ],
        "front": [point._asdict() for point in front(problem)],
        "bound": solution.bound + rest,
        "gap": solution.gap,
        "attempts": [one._asdict() for one in attempts],
        "layers": [_layer(one, solution.chosen, harm) for one in layers],
    }


def _harm(
    job: Job,
    predictions: Predictions,
    calibration: list[Any],
    layers: list[Layer],
    rounding: Rounding,
) -> dict[str, dict[str, float]]:
    """What the step's measure says that each choice does."""
    from quantship.search import fisher, sensitivity

    wanted = job.settings.step.measure
    if wanted == "fisher":
        return fisher.estimate(predictions.model, calibration, layers, rounding, job.resume)
    measured = sensitivity.measure(predictions, layers, rounding, job.resume)
    return {
        layer: {
            name: damage.kl_nats if wanted == "kl" else damage.loss_nats
            for name, damage in one.items()
        }
        for layer, one in measured.items()
    }


def _described(
    candidate: str | None,
    chosen: Allocation,
    layers: list[Layer],
    problem: Problem,
    measure: Callable[[Allocation], Damage],
) -> Facts:
    """What an allocation costs, and what it does by prediction and by measurement."""
    from quantship.quant.choices import bits_of

    own = [(one, one.formats[chosen[one.name]].weight) for one in layers if one.is_chosen]
    bits = sum(bits_of(fmt, one.num_out, one.num_in) for one, fmt in own)
    damage = measure(chosen)
    return {
        "candidate": candidate,
        "bits": bits / sum(one.num_weights for one, _ in own),
        "cost": problem.cost_of(chosen),
        "predicted_nats": problem.harm_of(chosen),
        "kl_nats": damage.kl_nats,
        "loss_nats": damage.loss_nats,
    }


def _layer(layer: Layer, chosen: Allocation, harm: Mapping[str, Mapping[str, float]]) -> Facts:
    """What became of one layer."""
    candidate = chosen.get(layer.name, next(iter(layer.formats)))
    fmt = layer.formats[candidate].weight
    return {
        "name": layer.name,
        "candidate": candidate if layer.is_chosen else None,
        "code_bits": fmt.bits,
        "group_size": fmt.group_size,
        "weights": layer.num_weights,
        "predicted_nats": harm[layer.name][candidate],
    }
