"""Export a tiny model in every lowering, and write down what quantship itself makes of it.

``python tests/compat/exports.py DIRECTORY``, in quantship's environment. The clients of this folder
load ``DIRECTORY/<name>`` in theirs, where quantship is not, and hold against
``DIRECTORY/expected.json`` what they get. ``DIRECTORY/published`` is a repository as ``quantship
push`` would leave it on the Hub, with a checkpoint and two ONNX models.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from quantship.exporters import decoder
from quantship.exporters.lowering import Lowering, reject
from quantship.models import load_tokenizer
from quantship.quant.convert import convert
from quantship.quant.modules import prepare_qat
from quantship.quant.scheme import SCHEMES
from quantship.recipe.language import TinyModel
from quantship.runtimes.base import greedy, open_runtime
from quantship.tiny import build_model, build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SCHEMES_TO_EXPORT = ("w8a8", "w4a16-g32")
NEW_TOKENS = 24
SPREAD = 4
"""Factor on the layers' weights; as they are initialized, the model soon repeats itself."""
PROMPTS = (
    "a",
    "The quick brown fox",
    "To be, or not to be, that is the question: whether 'tis nobler in the mind",
    "Größe, naïveté, 😀\n\t  two  spaces",
)
PUBLISHED = "published"
REPO = "me/tiny"
RECIPE = """\
name: published
data: {eval: [{adapter: builtin, split: eval, num_examples: 4}], max_length: 96}
steps:
  - {stage: quantize, name: eight, scheme: w8a8}
  - {stage: quantize, name: four, scheme: w4a16-g32, packed: false}
  - {stage: export, input: [eight, four], target: x86}
evaluation: {parity_sequences: 2}
benchmark: null
"""
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
"""What the model card's code asks."""
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the capital of France?"},
]


@dataclass(frozen=True)
class Kind:
    """What is exported.

    Args:
        scheme: Name of its scheme; None: float.
        lowering: Form of its quantized layers.
        tied: Whether embedding and head are one matrix.
        own_width: A Qwen 3, whose heads are wider than its features divided by their number.
    """

    scheme: str | None
    lowering: Lowering
    tied: bool = False
    own_width: bool = False


def main(root: Path) -> None:
    """Write all exports and ``expected.json``."""
    torch.set_num_threads(1)
    tokenizer = build_tokenizer(max_length=256)
    expected = {}
    for name, kind in kinds().items():
        path = root / name
        path.mkdir(parents=True)
        export(kind, tokenizer, path)
        expected[name] = {
            "own_width": kind.own_width,
            "alone": alone(path, tokenizer),
            "together": together(path, tokenizer),
        }
    chat: Any = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    facts = {
        "exports": expected,
        "chat": {"messages": CHAT, "text": chat},
        PUBLISHED: publish(root / PUBLISHED, tokenizer),
    }
    (root / "expected.json").write_text(json.dumps(facts, indent=1))


def publish(out: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Write a repository; what quantship's runtime makes of the question, by the model's dtype."""
    from quantship import pipeline
    from quantship.publishing import finished, repository
    from quantship.recipe import load
    from quantship.recipe.language import Push

    push = Push(repo=REPO, models=("eight", "eight-onnx", "four-onnx"), license="other")
    with TemporaryDirectory() as made:
        root = Path(made)
        for part in (build(Kind(None, "float"), tokenizer), tokenizer):
            part.save_pretrained(root / "base")
        recipe = root / "published.yaml"
        recipe.write_text(f"{RECIPE}model: {root / 'base'}\n")
        done = pipeline.run(load(recipe), root / "artifacts")
        (content,) = repository.prepare(finished.open_run(done.report_dir), push)
        for upload in content.uploads:
            place = out / upload.path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(upload.read())
        models = {"q8": "eight-onnx", "q4": "four-onnx"}
        found = {
            dtype: answered(done.report_dir / "models" / name) for dtype, name in models.items()
        }
    assert all(len(one["tokens"]) > 5 for one in found.values()), "the models say nothing"
    return {"repository": REPO, "models": found}


def answered(path: Path) -> dict[str, Any]:
    """The question as tokens, and the model's greedy answer."""
    tokenizer = load_tokenizer(path)
    text: Any = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    stop = frozenset([tokenizer.eos_token_id])
    return {
        "text": text,
        "prompt": prompt,
        "tokens": greedy(open_runtime(path, threads=1), prompt, NEW_TOKENS, stop),
    }


def kinds() -> dict[str, Kind]:
    """All that is exported, by name."""
    every = {
        f"{scheme}-{lowering}": Kind(scheme, lowering)
        for scheme, lowering in product(SCHEMES_TO_EXPORT, get_args(Lowering))
        if reject(SCHEMES[scheme], lowering) is None
    }
    return {
        "float": Kind(None, "float"),
        **every,
        "w8a8-nbits-tied": Kind("w8a8", "nbits", tied=True),
        "w8a8-nbits-own-width": Kind("w8a8", "nbits", own_width=True),
    }


def export(kind: Kind, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write one export into an empty directory."""
    with TemporaryDirectory() as made:
        source = Path(made)
        model = build(kind, tokenizer)
        if kind.scheme is None:
            model.save_pretrained(source)
        else:
            prepare_qat(model, SCHEMES[kind.scheme])
            convert(model, source)
        tokenizer.save_pretrained(source)
        decoder.export(source, kind.lowering, kind.scheme, out, "x86")


def build(kind: Kind, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A float model that does not repeat itself soon."""
    model: Any = build_model(TinyModel(tied=kind.tied), tokenizer, seed=1)
    if kind.own_width:
        from transformers import Qwen3Config, Qwen3ForCausalLM

        config = model.config.to_dict() | {"head_dim": 2 * model.config.head_dim}
        del config["model_type"], config["architectures"]
        torch.manual_seed(1)
        model = Qwen3ForCausalLM(Qwen3Config(**config))
    for layer in model.model.layers.parameters():
        if layer.ndim > 1:
            layer.data *= SPREAD
    return model.eval()


def alone(path: Path, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """Prompts, their tokens and the greedy continuations that quantship's runtime gives."""
    stop = frozenset([tokenizer.eos_token_id])
    found = []
    for prompt in PROMPTS:
        tokens = tokenizer(prompt, add_special_tokens=False).input_ids
        new = greedy(open_runtime(path, threads=1), tokens, NEW_TOKENS, stop)
        found.append({"text": prompt, "prompt": tokens, "tokens": new})
    assert len({token for one in found for token in one["tokens"]}) > 15, "the model only repeats"
    return found


def together(path: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Prompts of one length, and how quantship's runtime continues them in one batch."""
    prompts = [tokenizer(text, add_special_tokens=False).input_ids[:12] for text in PROMPTS[1:]]
    runtime = open_runtime(path, threads=1)
    steps = [runtime.prefill(np.array(prompts), len(prompts[0]) + NEW_TOKENS).argmax(axis=-1)]
    while len(steps) < NEW_TOKENS:
        steps.append(runtime.decode(steps[-1]).argmax(axis=-1))
    tokens = np.stack(steps, axis=1).tolist()
    assert not any(tokenizer.eos_token_id in row for row in tokens), "rows shall be of one length"
    return {"prompts": prompts, "tokens": tokens}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
