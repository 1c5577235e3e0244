"""Files that are no more what they were when they were finished, or when a run was killed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from faults import damage, recipe
from faults.frame import Fault, JobDone, Lab, ended_with_a_message
from faults.outcome import finished

from quantship.artifact import MANIFEST

KIND = "corrupted file"
ROUNDS = 24
"""Runs of the full form, each after damage to many artifacts."""
STRAYS = (
    "model-00002.safetensors",
    "adapter_config.json",
    "modeling_llama.py",
    "new/notes.txt",
)
"""Files that others may have put into an artifact; some a library would load."""
SIGKILL = -9


def reject() -> str | None:
    """Why this cannot be tried here: nothing is needed for it."""
    return None


def inject(lab: Lab, *, short: bool, seed: int) -> Iterator[Fault]:
    """Damage every kind of file: of artifacts, of reports, and of what a killed run left."""
    generator = random.Random(seed)
    for number in range(1 if short else ROUNDS):
        yield from _artifacts(lab, generator, share=1.0 if number % 3 == 0 else 0.4)
    for stray in generator.sample(STRAYS, 1 if short else len(STRAYS)):
        yield _stray(lab, generator, stray)
    yield from _report(lab, generator)
    for name in ("report.json", "lock.json", "models/qat", ".lock")[: 1 if short else None]:
        yield _in_the_way(lab, name)
    jobs = _resumable(lab)
    if short:
        training = [job for job in jobs if job.stage == "finetune"]
        jobs = [*training, generator.choice([job for job in jobs if job.stage != "finetune"])]
    for job in jobs:
        yield from _unfinished(lab, generator, job, short=short)


def _artifacts(lab: Lab, generator: random.Random, *, share: float) -> Iterator[Fault]:
    """Damage one file of each of many artifacts, and run: those are made again, and no others."""
    root = lab.rewound(None)
    whole = finished(root)
    jobs = {job.directory: job for job in lab.reference().jobs}
    chosen = generator.sample(sorted(jobs), max(1, round(share * len(jobs))))
    moments = {}
    for directory in chosen:
        file = generator.choice(_files(root / "steps" / directory))
        kind = generator.choice(sorted(damage.ALL))
        damage.ALL[kind](file, generator)
        inside = file.relative_to(root / "steps" / directory).as_posix()
        moments[directory] = f"{jobs[directory].stage}/{inside}: {kind}"
    before = {name: stamp for name, stamp in whole.items() if name not in moments}
    run = lab.start(root)
    code = run.wait()
    reused = set(run.happened("reused"))
    fault = lab.judge(KIND, "", root, run, clean=code == 0, before=before)
    for directory, moment in moments.items():
        wrong = fault.wrong
        if jobs[directory].name in reused:
            wrong = (*wrong, f"{directory} was reused")
        yield replace(fault, moment=moment, wrong=wrong)


def _stray(lab: Lab, generator: random.Random, name: str) -> Fault:
    """Put a file into a sound artifact: it is not used, and not made again behind one's back."""
    root = lab.rewound(None)
    before = finished(root)
    models = [job for job in lab.reference().jobs if job.stage in ("finetune", "qat", "quantize")]
    job = generator.choice(models)
    file = root / "steps" / job.directory / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    run = lab.start(root)
    run.wait()
    clean = ended_with_a_message(run, 2) and f"not its own: {name}" in run.stderr
    file.unlink()
    return lab.judge(KIND, f"{job.stage}: {name} added", root, run, clean=clean, before=before)


def _report(lab: Lab, generator: random.Random) -> Iterator[Fault]:
    """Damage every file of a report and every link to a model at once: a run writes them anew."""
    root = lab.rewound(None)
    before = finished(root)
    folder = root / "runs" / recipe.FAULTS
    moments = []
    kinds = {name: one for name, one in damage.ALL.items() if name != "a folder"}
    for file in _files(folder):
        kind = generator.choice(sorted(kinds))
        kinds[kind](file, generator)
        moments.append(f"report/{file.name}: {kind}")
    for link in sorted((folder / "models").iterdir()):
        link.unlink()
        if generator.random() < 0.5:
            link.symlink_to(root)
        moments.append("report: a link to a model")
    run = lab.start(root)
    fault = lab.judge(KIND, "", root, run, clean=run.wait() == 0, before=before)
    for moment in moments:
        yield replace(fault, moment=moment)


def _in_the_way(lab: Lab, name: str) -> Fault:
    """A folder where a file of the report, a link or the lock has to be: told, and nothing lost."""
    root = lab.rewound(None)
    before = finished(root)
    place = root / name if name == ".lock" else root / "runs" / recipe.FAULTS / name
    place.unlink(missing_ok=True)
    place.mkdir()
    (place / "theirs").touch()
    run = lab.start(root)
    run.wait()
    kept = (place / "theirs").exists()
    clean = ended_with_a_message(run, 2, 3) and str(place) in run.stderr and kept
    shutil.rmtree(place)
    return lab.judge(KIND, f"a folder at {name}", root, run, clean=clean, before=before)


def _unfinished(
    lab: Lab, generator: random.Random, job: JobDone, *, short: bool
) -> Iterator[Fault]:
    """Kill a job at its end, and damage what it left to go on from, one file after the other."""
    killed = lab.rewound(job)
    end = f"open steps/{job.directory}.partial/{MANIFEST}"
    watched = {"root": str(killed), "die_at": end}
    run = lab.start(killed, watched=watched)
    run.wait()
    resume = killed / "steps" / f"{job.directory}.resume"
    files = [file for file in _files(resume) if ".unfinished" not in file.name]
    assert files, f"{job.name} was killed with nothing to go on from"
    for file in [generator.choice(files)] if short else files:
        kind = generator.choice(sorted(damage.CONTENT))
        root = lab.new_root()
        shutil.copytree(killed, root, symlinks=True)
        damage.CONTENT[kind](root / file.relative_to(killed), generator)
        inside = file.relative_to(resume).as_posix()
        said = f"unfinished {job.stage}/{inside}: {kind}"
        yield lab.judge(KIND, said, root, run, clean=run.returncode == SIGKILL)
    shutil.rmtree(killed)


def _resumable(lab: Lab) -> list[JobDone]:
    """Jobs that keep something to go on from."""
    seen = [moment for moment, _ in lab.reference().moments]
    return [
        job
        for job in lab.reference().jobs
        if any(f" steps/{job.directory}.resume/" in moment for moment in seen)
    ]


def _files(folder: Path) -> list[Path]:
    """Files of a folder but for hidden ones; links to folders are not followed."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink() and not file.name.startswith(".")
    )
