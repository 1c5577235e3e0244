from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from quantship.tasks.base import Subject
from quantship.tasks.continuations import Continuation, Score, encode, score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def wanted() -> list[Continuation]:
    """Continuations of many lengths; the first prefix goes on in three ways."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(generator.integers(4, 260, count).tolist())

    shared = draw(20)
    made = [Continuation(shared, tokens) for tokens in ((9,), (77,), (9, 8, 7))]
    return made + [Continuation(draw(a), draw(b)) for a, b in ((1, 1), (1, 12), (31, 2), (5, 5))]


def scores(subject: Subject, wanted: list[Continuation], size: int) -> list[Score]:
    runtime: Any = subject.runtime
    found = dict(score(runtime, wanted, size))
    assert sorted(found) == list(range(len(wanted)))
    return [found[place] for place in range(len(wanted))]


def test_scores_are_torchs_one_at_a_time(
    subjects: dict[str, Subject], wanted: list[Continuation]
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(subjects["torch"].path).eval()
    found = scores(subjects["torch"], wanted, 3)
    for one, result in zip(wanted, found, strict=True):
        whole = torch.tensor([one.prefix + one.tokens])
        with torch.inference_mode():
            logits = model(input_ids=whole).logits[0, len(one.prefix) - 1 : -1].double()
        tokens = torch.tensor(one.tokens)
        likely = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens].sum().item()
        assert result.log_likelihood_nats == pytest.approx(likely, rel=1e-5)
        assert result.is_greedy == bool((logits.argmax(-1) == tokens).all())


def test_the_greedy_continuation_is_greedy(subjects: dict[str, Subject]) -> None:
    from quantship.runtimes.base import greedy

    runtime: Any = subjects["torch"].runtime
    tokens = tuple(greedy(runtime, [5, 6, 7], 4))
    other = (*tokens[:-1], (tokens[-1] + 1) % 256)
    wanted = [Continuation((5, 6, 7), tokens), Continuation((5, 6, 7), other)]
    assert [one.is_greedy for one in scores(subjects["torch"], wanted, 2)] == [True, False]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batching_changes_nothing(
    subjects: dict[str, Subject], wanted: list[Continuation], size: int
) -> None:
    together = scores(subjects["torch"], wanted, 3)
    for one, other in zip(scores(subjects["torch"], wanted, size), together, strict=True):
        assert one.log_likelihood_nats == pytest.approx(other.log_likelihood_nats, rel=1e-5)


def test_runtimes_agree(subjects: dict[str, Subject], wanted: list[Continuation]) -> None:
    for ours, theirs, tolerance in (
        ("onnxruntime", "torch", 1e-4),
        ("onnxruntime of torchao", "torchao", 2e-2),
    ):
        found = [one.log_likelihood_nats for one in scores(subjects[ours], wanted, 3)]
        expected = [one.log_likelihood_nats for one in scores(subjects[theirs], wanted, 3)]
        assert found == pytest.approx(expected, rel=tolerance)


def test_ways_of_one_token_share_a_pass(subjects: dict[str, Subject]) -> None:
    runtime: Any = subjects["torch"].runtime
    rows: list[int] = []

    class Counting:
        def logits(self, input_ids: Any, attention_mask: Any) -> Any:
            rows.append(len(input_ids))
            return runtime.logits(input_ids, attention_mask)

    counting: Any = Counting()
    list(score(counting, [Continuation((5, 6), (token,)) for token in range(9)], 4))
    assert rows == [1]


def test_prefix_and_continuation_are_the_tokens_of_the_whole(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tiny_tokenizer(text, add_special_tokens=False)["input_ids"])

    for prefix, going_on in (("Is it?", " yes"), ("Is it? ", "no"), ("A:\n", "x")):
        made = encode(tiny_tokenizer, prefix, going_on)
        assert made.prefix == tokens(prefix.rstrip())
        assert made.prefix + made.tokens == tokens(prefix + going_on)


def test_before_an_empty_prefix_stands_one_token(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    made = encode(tiny_tokenizer, "", "yes")
    assert len(made.prefix) == 1
    assert made.tokens == tuple(tiny_tokenizer("yes", add_special_tokens=False)["input_ids"])


def test_what_is_too_long_loses_its_beginning() -> None:
    one = Continuation(tuple(range(10)), (20, 21, 22))
    assert one.within(12) == one
    assert one.within(8) == Continuation((4, 5, 6, 7, 8, 9), (20, 21, 22))
    assert len(one.within(8).read) == 8
    assert one.within(2).prefix == (9,)
