"""The models that a recipe names: the one to start from, and one that teaches another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from quantship.data.source import LocalPath, Revision
from quantship.frozen import Frozen

STEP_NAME = r"^[0-9]*[a-z][a-z0-9_-]*$"
"""What a step may be called; never a number alone, which would be an index of the list."""
Positive = Annotated[int, Field(ge=1)]


def _is_hub_id(name: str) -> str:
    """The name itself; ValueError where huggingface_hub would refuse it, as ``../x``."""
    for part in name.split("/"):
        if part.startswith((".", "-")) or part.endswith((".", "-")) or ".." in part or "--" in part:
            raise ValueError(
                f"'{name}' is no Hub id: its parts neither begin nor end with . or -, nor hold "
                "'..' or '--'"
            )
    return name


HubId = Annotated[
    str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=96), AfterValidator(_is_hub_id)
]


class TinyModel(Frozen):
    """A Llama-shaped model with random weights and a byte-level tokenizer, made on the spot."""

    hidden_size: Positive = 128
    """Width of the residual stream."""
    intermediate_size: Positive = 384
    """Width of the feed-forward layer."""
    num_layers: Positive = 2
    """Decoder layers."""
    num_heads: Positive = 4
    """Attention heads; must divide hidden_size."""
    num_kv_heads: Positive = 2
    """Key and value heads; must divide num_heads."""
    max_positions: Positive = 1024
    """Longest sequence in tokens."""
    tied: bool = True
    """Share one matrix between token embedding and output head."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TinyModel:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 2:
            raise ValueError("num_heads must divide hidden_size into heads of an even width")
        if self.num_heads % self.num_kv_heads:
            raise ValueError("num_kv_heads must divide num_heads")
        return self


class MlpModel(Frozen):
    """A classifier with random weights, made on the spot: linear layers with ReLU between them."""

    sizes: tuple[Positive, ...]
    """Widths from the features to the classes, as ``[784, 512, 10]``."""

    @field_validator("sizes")
    @classmethod
    def _have_two_ends(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if len(sizes) < 2:
            raise ValueError("give the number of features and of classes at least")
        return sizes


class Model(Frozen):
    """Where the model comes from: exactly one of ``path``, ``hub``, ``tiny`` and ``mlp``.

    A plain string stands for a local directory where one of that name exists, else for a Hub id.
    """

    path: LocalPath | None = None
    """Local Hugging Face directory (config.json, safetensors, tokenizer)."""
    hub: HubId | None = None
    """Hub id, as ``HuggingFaceTB/SmolLM2-135M-Instruct``."""
    revision: Revision = "main"
    """Branch, tag or commit of the Hub model; resolved to a commit before anything is reused."""
    tiny: TinyModel | None = None
    """A small language model with random weights, to be trained from scratch."""
    mlp: MlpModel | None = None
    """A small classifier with random weights, to be trained from scratch on samples."""
    head: Literal["classification"] | None = None
    """``classification``: an encoder, as BERT, that tells the classes of the data's texts: by its
    own head where it has one for them, else by a new one, with random weights."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return {"path" if _looks_local(value) else "hub": value}

    @model_validator(mode="after")
    def _exactly_one(self) -> Model:
        kinds = ("path", "hub", "tiny", "mlp")
        given = [key for key in kinds if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(kinds)}; got {given or 'none'}")
        if self.head is not None and given[0] in ("tiny", "mlp"):
            raise ValueError(f"a head is for an encoder of path or hub, and this is {given[0]}")
        return self


def _looks_local(name: str) -> bool:
    try:
        return name.startswith((".", "/", "~")) or Path(name).is_dir()
    except OSError:  # longer than a path may be
        return False


class Teacher(Frozen):
    """What teaches: exactly one of ``step``, ``path`` and ``hub``.

    A plain string stands for a step (or ``model``) where it could be a step's name, else for a
    local directory or a Hub id, as in the recipe's own ``model``: ``finetune``, ``./teacher``,
    ``HuggingFaceTB/SmolLM2-360M-Instruct``.
    """

    step: str | None = None
    """Step before this one that leaves a float model; ``model``: the one the recipe starts from."""
    path: LocalPath | None = None
    """Local Hugging Face directory of a float model with the same vocabulary."""
    hub: HubId | None = None
    """Hub id of a float model with the same vocabulary."""
    revision: Revision = "main"
    """Branch, tag or commit of the Hub model; resolved to a commit before anything is reused."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if re.match(STEP_NAME, value):
            return {"step": value}
        return {"path" if _looks_local(value) else "hub": value}

    @model_validator(mode="after")
    def _exactly_one(self) -> Teacher:
        given = [key for key in ("step", "path", "hub") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of step, path, hub; got {given or 'none'}")
        return self

    @property
    def outside(self) -> Model | None:
        """The model that no step of the recipe makes; None where one does."""
        if self.step is not None:
            return None
        return Model(path=self.path, hub=self.hub, revision=self.revision)


class Distillation(Frozen):
    """A frozen float model teaches the model in training: its predictions are learned as well.

    The loss is (1 - weight) × cross-entropy with the data + weight × divergence from the teacher's
    predictions + hidden_states × error of the hidden states, each a mean over the tokens that the
    loss looks at.
    """

    teacher: Teacher | None = None
    """Step, directory or Hub model to learn from; default: the step's own input, before rounding.
    """
    # Half of each at temperature 2 came out best, or level with the best, on tiny models at 2 bits:
    # with teachers that had converged and with one that had not, which the divergence alone holds
    # back. DistilBERT and DistilGPT-2 learned at temperature 2 as well.
    temperature: float = Field(default=2.0, gt=0)
    """Divides the logits of both, so that above 1 the teacher's unlikely tokens count for more."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """Share of the divergence (Kullback-Leibler, times temperature squared) in the loss; the rest
    is cross-entropy."""
    hidden_states: float = Field(default=0.0, ge=0)
    """Weight of the squared error of every layer's output, relative to the teacher's square; the
    teacher then needs as many layers, as wide."""
