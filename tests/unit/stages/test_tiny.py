from __future__ import annotations

from collections.abc import Callable

from quantship.artifact import digest_tree
from quantship.job import Job
from quantship.models import load_float, load_tokenizer
from quantship.recipe.language import TinyModel
from quantship.stages import tiny

SMALL = TinyModel(hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2, num_kv_heads=1)


def test_it_leaves_a_model_to_train(job: Callable[..., Job]) -> None:
    done = job(tiny.Settings(dimensions=SMALL, seed=0))
    facts = tiny.run(done)
    assert load_float(done.out).num_parameters() == facts["num_parameters"]
    assert load_tokenizer(done.out).model_max_length == SMALL.max_positions


def test_equal_settings_leave_equal_files(job: Callable[..., Job]) -> None:
    digests = []
    for name, seed in (("1", 0), ("2", 0), ("3", 1)):
        done = job(tiny.Settings(dimensions=SMALL, seed=seed), name)
        tiny.run(done)
        digests.append(digest_tree(done.out))
    assert digests[0] == digests[1] != digests[2]
