"""lm-evaluation-harness's own Hugging Face model class, with a runtime of quantship's in it.

Requests, their order, batches, truncation, chat templates, beginning-of-sequence tokens and the
cutting of answers are lm-eval's, line by line; only the two calls that run the model are replaced.
Logits are float32, whatever the checkpoint is stored in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from quantship import lines, progress
from quantship.errors import QuantshipError
from quantship.runtimes.base import Runtime
from quantship.runtimes.generation import generate

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from quantship.tasks.base import Subject

GREEDY: dict[str, tuple[object, ...]] = {
    "do_sample": (False,),
    "num_beams": (1,),
    "temperature": (None, 0, 1),
    "use_cache": (True,),
}
"""Settings of a generation that are known, and the values of each that change nothing."""

SAMPLING_ONLY = ("top_k", "top_p", "min_p", "typical_p")
"""Settings that mean nothing where the likeliest token is taken."""


class RuntimeModel(HFLM):  # type: ignore[misc]
    """A model under evaluation, as lm-eval asks for it.

    Args:
        subject: The model and its tokenizer.
        journal: File that keeps finished answers, so that a killed run goes on after them.
        batch_size: Sequences at once.
        max_length: Longest sequence in tokens; None: the model's.
        add_bos_token: Begin with the tokenizer's first token; None: as the tokenizer does.
    """

    def __init__(
        self,
        subject: Subject,
        journal: Path,
        batch_size: int,
        max_length: int | None,
        add_bos_token: bool | None,
    ) -> None:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(subject.path, trust_remote_code=False)
        if hasattr(config, "quantization_config"):  # lm-eval would prepare to load it
            del config.quantization_config
        self._runtime: Runtime = subject.runtime  # type: ignore[assignment]
        self._generation = generation_config(subject.path)
        self._bar = progress.Bar(None, None)
        self._num_done = 0
        super().__init__(
            pretrained=SimpleNamespace(config=config, device=torch.device("cpu")),
            tokenizer=subject.tokenizer,
            batch_size=batch_size,
            max_length=max_length,
            add_bos_token=add_bos_token,
        )
        self.cache_hook = _Journal(journal, self._advance)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether it is the likeliest at each token."""
        found: list[Any] = self._answer("loglikelihood", requests, super().loglikelihood)
        return [(float(logprob), bool(is_greedy)) for logprob, is_greedy in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Log-likelihood of each text."""
        return self._answer("loglikelihood_rolling", requests, super().loglikelihood_rolling)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """What the model says to each prompt, up to a stop sequence."""
        return self._answer("generate_until", requests, super().generate_until)

    def _answer(
        self, method: str, requests: list[Instance], ask: Callable[..., list[Any]]
    ) -> list[Any]:
        """Answers to all requests, of which the journal may know some."""
        known = [self.cache_hook.find(method, request.args) for request in requests]
        pairs = zip(requests, known, strict=True)
        missing = [request for request, answer in pairs if answer is None]
        rolls = method == "loglikelihood_rolling"  # counts windows: how many is not known before
        with progress.bar("asking", None if rolls else len(missing)) as self._bar:
            self._num_done = 0
            new = iter(ask(missing, disable_tqdm=True) if missing else [])
        return [next(new) if answer is None else answer for answer in known]

    def _advance(self) -> None:
        self._num_done += 1
        self._bar.move_to(self._num_done)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        # lm-eval's own rolling likelihood asks for a bar whatever it is told.
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=True, override_bs=override_bs
        )
        for key, _, _ in requests:
            if key is None:  # a window of a rolling likelihood, which is not in the journal
                self._advance()
        return found

    def _model_call(
        self, inps: torch.Tensor, attn_mask: object = None, labels: object = None
    ) -> torch.Tensor:
        """Logits of every position: (B, T) to (B, T, V).

        As lm-eval, without a mask: what is filled up on the right is not seen from the left.
        """
        input_ids = inps.numpy()
        return torch.from_numpy(self._runtime.logits(input_ids, np.ones_like(input_ids)))

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        """Prompts, filled up on the left, and what follows, filled up on the right: (B, T)."""
        mask = settings.pop("attention_mask")
        _require_greedy(settings)
        prompts = [row[keep == 1].tolist() for row, keep in zip(context, mask, strict=True)]
        ends = _Ends(self.tokenizer, stop, self._generation)
        new = generate(
            self._runtime,
            prompts,
            max_length - context.shape[1],
            batch_size=len(prompts),
            enough=ends.reached,
        )
        longest = max(map(len, new))
        filled = [row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in new]
        return torch.cat([context, torch.tensor(filled, dtype=context.dtype)], dim=1)


def generation_config(path: Path) -> GenerationConfig:
    """How transformers would generate with a model directory."""
    from transformers import AutoConfig, GenerationConfig

    if (path / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(path)
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    return GenerationConfig.from_model_config(config)


def _require_greedy(settings: dict[str, Any]) -> None:
    """Raise QuantshipError where a task asks for anything but the likeliest token."""
    for name, value in settings.items():
        if name not in SAMPLING_ONLY and value not in GREEDY.get(name, ()):
            raise QuantshipError(
                f"the task generates with {name}: {value}, and models are asked here for the "
                "likeliest token at each step, so that they can be compared"
            )


class _Ends:
    """Where an answer ends: at a stop sequence, or at a token that ends a text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: list[str], config: GenerationConfig
    ) -> None:
        last = config.eos_token_id
        self._last = set(last if isinstance(last, list) else [last])
        self._stop = [sequence for sequence in stop if sequence]
        self._tokenizer = tokenizer

    def reached(self, new: Sequence[int]) -> bool:
        """Whether the tokens generated so far are all there is to an answer."""
        if new[-1] in self._last:
            return True
        text = self._tokenizer.decode(list(new))
        return any(sequence in text for sequence in self._stop)


class _Journal:
    """Answers that are finished, one line each; lm-eval tells it of each through its cache hook.

    Args:
        path: File that is appended to.
        notify: Called at each answer.
    """

    def __init__(self, path: Path, notify: Callable[[], None]) -> None:
        self._path = path
        self._notify = notify
        self._known: dict[str, Any] = dict(lines.read(path))

    def find(self, method: str, arguments: Sequence[Any]) -> Any:
        """The answer to a request; None: not known yet."""
        return self._known.get(json.dumps([method, *arguments]))

    def add_partial(self, attr: str, req: Sequence[Any], res: Any) -> None:
        """Keep the answer to a request; the name and its parameters are lm-eval's."""
        lines.append([[json.dumps([attr, *req]), res]], self._path)
        self._notify()
