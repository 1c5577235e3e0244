"""Set the models of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quantship.comparing import differences, evaluated, tasks
from quantship.comparing.opening import Opened, open_runs
from quantship.comparing.schema import Comparison, Group, Model, Run
from quantship.reading import reading
from quantship.reporting import fronts, ranking
from quantship.reporting.comparison import SHAPE, is_wrong
from quantship.reporting.ranking import Losses
from quantship.reporting.ranking_schema import Ranking

SEED = 0


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare the runs that these paths stand for.

    Args:
        paths: As ``open_runs`` reads them.

    Raises:
        QuantshipError: Something is missing, or is no report.
    """
    with reading(*paths):
        return _compare(open_runs(paths))


def _compare(runs: Sequence[Opened]) -> Comparison:
    return Comparison(
        runs=[
            Run(
                label=run.label,
                path=str(run.path),
                created=run.report.created,
                quantship_version=run.report.quantship_version,
                evaluation=evaluated.words(run.report),
            )
            for run in runs
        ],
        groups=[_group(those) for those in evaluated.groups(runs)],
        tasks=tasks.compare(runs),
        environment=differences.environment(runs),
        recipes=differences.recipes(runs),
    )


def _group(runs: Sequence[Opened]) -> Group:
    models = _models(runs)
    speeds = _speeds(runs)
    rows = [
        model.row.model_copy(update={"benchmark": None}) if speeds else model.row
        for model in models
    ]
    return Group(
        runs=[run.label for run in runs],
        evaluation=evaluated.words(runs[0].report),
        models=models,
        ranking=_ranking(runs, models),
        fronts=fronts.fronts(rows, [model.name for model in models]),
        speeds=speeds,
    )


def _models(runs: Sequence[Opened]) -> list[Model]:
    """All models of the runs; one that a run has reused from another stands once."""
    found: dict[str, Model] = {}
    for run in runs:
        for row in run.report.models:
            name = f"{run.label}/{row.name}"
            identity = run.fingerprints.get(row.name, name)
            before = found.get(identity)
            if before is None:
                found[identity] = Model(name=name, run=run.label, also=[], row=row)
            else:
                also = [*before.also, name]
                found[identity] = before.model_copy(update={"also": also})
    return list(found.values())


def _ranking(runs: Sequence[Opened], models: Sequence[Model]) -> Ranking | None:
    contenders = [
        ranking.contender(row, run.label)
        for run in runs
        for row in run.report.models
        if row.kind in ("float", "torchao") and not is_wrong(row)
    ]
    # A source that another run has reused is known by the name that it has there.
    called = {name: model.name for model in models for name in (model.name, *model.also)}
    contenders = [
        replace(one, source=called.get(one.source or "", one.source)) for one in contenders
    ]
    once = {model.name for model in models}
    return ranking.rank(
        [one for one in contenders if one.name in once],
        _losses(runs),
        by="loss",
        yardsticks=[one for one in contenders if one.name not in once],
    )


def _losses(runs: Sequence[Opened]) -> Losses:
    """Losses of all models, with resamples where those of every sequence are at hand."""
    measured = {
        f"{run.label}/{row.name}": (run, row.name, row.metrics.mean_loss)
        for run in runs
        for row in run.report.models
        if row.metrics is not None
    }
    means = {name: loss for name, (_, _, loss) in measured.items()}
    lacking = {run.label for run, row, _ in measured.values() if row not in run.sequences}
    if lacking:
        return ranking.means(
            means,
            f"the losses by sequence of {', '.join(sorted(lacking))} are not at hand; they lie in "
            "steps/ beside runs/",
        )
    sequences = {name: run.sequences[row] for name, (run, row, _) in measured.items()}
    counts = [one.num_tokens for one in sequences.values()]
    if not counts or any(one.tolist() != counts[0].tolist() for one in counts):
        return ranking.means(means, "the runs cut their evaluation data differently")
    return ranking.resample(
        {name: one.nll_nats for name, one in sequences.items()}, counts[0], seed=SEED
    )


def _speeds(runs: Sequence[Opened]) -> str | None:
    """Why the decode speeds of these runs are not to be compared; None where they are."""
    machines, shapes = set(), set()
    for run in runs:
        for row in run.report.models:
            if row.benchmark is not None:
                env = run.report.environment
                machines.add((env.cpu_model, env.num_cpus, env.gpu))
                shapes.add(tuple(getattr(row.benchmark, key) for key in SHAPE))
    if len(machines) > 1:
        return "decode speeds were measured on different machines"
    if len(shapes) > 1:
        return "decode speeds were measured on inputs of different shape"
    return None
