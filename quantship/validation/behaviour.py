"""Feed both models with the same, and judge what they answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantship.errors import UsageError
from quantship.validation import agreement, decoding, single_pass, tokens
from quantship.validation.options import Options
from quantship.validation.report import Agreement, Check, Continuation, Tolerance
from quantship.validation.subjects import Subject

LONGEST_PROMPT = 32
SIGMAS = " deviations"


@dataclass(frozen=True)
class Seen:
    """What two models answer to the same; fields as in ``Validation``."""

    inputs: str
    checks: tuple[Check, ...]
    outputs: tuple[Agreement, ...] = ()
    perplexity: tuple[float, float] | None = None
    continuation: Continuation | None = None


def compare(a: Subject, b: Subject, options: Options, allowed: Tolerance) -> Seen:
    """Compare two decoders on text, or two models of another kind on random inputs."""
    return (_decoders if a.generates else _single_passes)(a, b, options, allowed)


def _decoders(a: Subject, b: Subject, options: Options, allowed: Tolerance) -> Seen:
    sequences, checks = _sequences(a, b, options)
    if sequences is None:
        return Seen("nothing: the models do not read the same tokens", tuple(checks))
    windows, limit = sequences.windows, _longest(a, b)
    prompt = windows[0][: min(LONGEST_PROMPT, max(1, len(windows[0]) // 2))]
    new_tokens = (
        options.new_tokens if limit is None else min(options.new_tokens, limit - len(prompt))
    )
    ours, theirs = (decoding.observe(one, windows, prompt, new_tokens) for one in (a, b))
    widths = ours.logits[0].shape[-1], theirs.logits[0].shape[-1]
    if widths[0] != widths[1]:
        checks.append(_vocabulary(*widths))
        return Seen(sequences.described, tuple(checks))
    logits = agreement.compare("logits", ours.logits, theirs.logits, predicts=True)
    checks += [*_judged(logits, allowed), *_caches((ours.cache, theirs.cache), allowed)]
    perplexity = None
    if sequences.is_text:
        perplexity = ours.perplexity(windows), theirs.perplexity(windows)
    continuation = _continuation(len(prompt), ours, theirs, sequences.tokenizer)
    return Seen(sequences.described, tuple(checks), (logits,), perplexity, continuation)


def _sequences(
    a: Subject, b: Subject, options: Options
) -> tuple[tokens.Sequences | None, list[Check]]:
    limit = _longest(a, b)
    length = options.length if limit is None else min(options.length, limit)
    sizes = a.vocab_size, b.vocab_size
    checks = []
    if None not in sizes and sizes[0] != sizes[1]:
        checks.append(_vocabulary(*sizes))
    found = [one for one in map(tokens.tokenizer_of, (a, b)) if one is not None]
    text = tokens.read_text(options.text)
    if len(found) == 2:
        checks.append(tokens.same_tokenizer(found[0], found[1], text))
    if any(not check.passed for check in checks):
        return None, checks
    if found:
        named = str(options.text) if options.text else "built-in text"
        cut = tokens.from_text(text, named, found[0], sequences=options.sequences, length=length)
        return cut, checks
    vocabulary = sizes[0] or sizes[1]
    if options.text is not None:
        raise UsageError("--text: neither model has a tokenizer")
    if vocabulary is None:
        raise UsageError("neither model says how many tokens it knows, nor has it a tokenizer")
    drawn = tokens.at_random(
        vocabulary, sequences=options.sequences, length=length, seed=options.seed
    )
    return drawn, checks


def _longest(a: Subject, b: Subject) -> int | None:
    return min((one.max_tokens for one in (a, b) if one.max_tokens is not None), default=None)


def _vocabulary(ours: int | None, theirs: int | None) -> Check:
    detail = f"A predicts {ours:,} tokens and B {theirs:,}"
    return Check(name="vocabulary", passed=False, detail=detail)


def _continuation(
    prompt_tokens: int, ours: decoding.Observation, theirs: decoding.Observation, tokenizer: Any
) -> Continuation:
    a, b = ours.new_tokens, theirs.new_tokens
    first = next((i for i, (one, two) in enumerate(zip(a, b, strict=True)) if one != two), None)
    texts = (None, None) if tokenizer is None else (tokenizer.decode(a), tokenizer.decode(b))
    return Continuation(
        prompt_tokens=prompt_tokens,
        a=a,
        b=b,
        text_a=texts[0],
        text_b=texts[1],
        first_difference=first,
        cache=(ours.cache, theirs.cache),
    )


def _single_passes(a: Subject, b: Subject, options: Options, allowed: Tolerance) -> Seen:
    ours, theirs = single_pass.declared_by(a, b)
    inputs = single_pass.same_inputs(ours, theirs)
    if not inputs.passed:
        return Seen("nothing: the models take other inputs", (inputs,))
    feeds = single_pass.draw(ours, theirs, batches=options.sequences, seed=options.seed)
    outputs = single_pass.compare(single_pass.run(a, feeds), single_pass.run(b, feeds))
    described = f"{len(feeds)} random batches (seed {options.seed}): " + ", ".join(
        f"{name} {list(array.shape)}" for name, array in feeds[0].items()
    )
    checks = [inputs, *(check for output in outputs for check in _judged(output, allowed))]
    return Seen(described, tuple(checks), tuple(outputs))


def _judged(found: Agreement, allowed: Tolerance) -> list[Check]:
    """The checks that an output has to pass."""
    broken = found.not_finite
    if any(broken):
        detail = f"{broken[0]:,} numbers of A and {broken[1]:,} of B are NaN or infinite"
        return [Check(name=found.output, passed=False, detail=detail)]
    checks = []
    if allowed.relative is not None:
        checks.append(
            _at_most(found.output, "worst position", found.worst_relative, allowed.relative, SIGMAS)
        )
    if allowed.max_kl is not None and found.kl_ab_nats is not None:
        checks.append(
            _at_most("KL", f"{found.output}, mean", found.kl_ab_nats, allowed.max_kl, " nats")
        )
    if allowed.min_top1 is not None and found.top1_agreement is not None:
        share = found.top1_agreement
        detail = f"{share:.2%} of positions agree, at least {allowed.min_top1:.2%} asked"
        checks.append(Check(name="top-1", passed=share >= allowed.min_top1, detail=detail))
    return checks


def _caches(found: tuple[float, float], allowed: Tolerance) -> list[Check]:
    return [
        _at_most(f"cache of {label}", "token by token against at once", value, limit, SIGMAS)
        for label, value, limit in zip("AB", found, allowed.cache, strict=True)
        if limit is not None
    ]


def _at_most(name: str, what: str, value: float, limit: float, unit: str) -> Check:
    detail = f"{what} {value:.2g}{unit}, at most {limit:g}{unit} asked"
    return Check(name=name, passed=value <= limit, detail=detail)
