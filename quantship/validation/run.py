"""Validate one model against another: files first, then stored numbers, then what they compute."""

from __future__ import annotations

from pathlib import Path

from quantship.errors import UsageError
from quantship.reading import reading
from quantship.validation import behaviour, files, numbers, provenance, tolerance
from quantship.validation.options import Options
from quantship.validation.report import Check, Numbers, Side, Tolerance, Validation
from quantship.validation.subjects import Subject, identify

BOTH = "quantized matrices of A and B"
UNTOLD = Tolerance(why="not asked", relative=None)


def validate(a: Path, b: Path, options: Options | None = None) -> Validation:
    """Hold two models against each other.

    Args:
        a: Checkpoint directory, directory with an ONNX model, or an ONNX file.
        b: Another one.
        options: What to feed and what to call equal.

    Raises:
        UsageError: A path holds no model, or the two cannot be fed with the same.
        QuantshipError: A model cannot be loaded.
    """
    with reading(a, b):
        return _validate(a, b, options or Options())


def _validate(a: Path, b: Path, options: Options) -> Validation:
    one, other = identify("A", a), identify("B", b)
    broken = [
        Check(name=f"files of {subject.label}", passed=False, detail=problem)
        for subject in (one, other)
        for problem in files.problems(subject)
    ]
    if broken:  # whatever reads them would crash, or read garbage
        sides = [_side(subject, sound=False) for subject in (one, other)]
        return Validation(
            a=sides[0], b=sides[1], inputs="nothing", tolerance=UNTOLD, checks=tuple(broken)
        )
    checks = [
        Check(name=f"files of {subject.label}", passed=True, detail="present and of full length")
        for subject in (one, other)
    ]
    sides = [_side(subject, sound=True) for subject in (one, other)]
    checks += provenance.checks(one, other, (sides[0].files, sides[1].files))
    compared = _numbers(one, other)
    if not options.outputs_only:
        checks += [_check(part) for part in compared]
    same_codes = next((part.equal for part in compared if part.what == BOTH), None)
    allowed = options.over(tolerance.choose(one, other, same_codes=same_codes))
    if one.generates != other.generates:
        words = {True: "continues texts", False: "answers in one pass"}
        raise UsageError(
            f"A {words[one.generates]} and B {words[other.generates]}; give two models that can be "
            "fed with the same"
        )
    seen = behaviour.compare(one, other, options, allowed)
    return Validation(
        a=sides[0],
        b=sides[1],
        inputs=seen.inputs,
        tolerance=allowed,
        checks=(*checks, *seen.checks),
        numbers=tuple(compared),
        outputs=seen.outputs,
        perplexity=seen.perplexity,
        continuation=seen.continuation,
    )


def _side(subject: Subject, *, sound: bool) -> Side:
    path = subject.model_file or subject.path
    return Side(
        path=str(path),
        kind=subject.kind,
        scheme=subject.described.get("scheme"),
        arithmetic=subject.arithmetic if sound else "",
        files=files.facts(subject),
    )


def _numbers(a: Subject, b: Subject) -> list[Numbers]:
    found = []
    if a.has_codes and b.has_codes:
        found.append(numbers.compare_codes(a, b, BOTH))
    for model, other in ((a, b), (b, a)):
        source = provenance.source(model)
        if source is not None and source.path != other.path:
            what = f"quantized matrices of {source.path} and {model.label}, which was made from it"
            found.append(numbers.compare_codes(source, model, what))
    if a.kind == b.kind == "onnx":
        tensors = numbers.plain_initializers(a), numbers.plain_initializers(b)
        found.append(numbers.compare_tensors(*tensors))
    elif "onnx" not in (a.kind, b.kind):
        found.append(numbers.compare_tensors(numbers.plain_tensors(a), numbers.plain_tensors(b)))
    return [part for part in found if part.compared]


def _check(part: Numbers) -> Check:
    detail = f"{part.what}: {part.compared:,} are equal to the bit"
    if not part.equal:
        named = [*part.unreadable, *(str(difference) for difference in part.different)]
        more = f", and {len(named) - 1:,} more" if len(named) > 1 else ""
        detail = f"{part.what}: {named[0]}{more}"
    return Check(name="stored numbers", passed=part.equal, detail=detail)
