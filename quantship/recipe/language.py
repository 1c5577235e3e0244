"""The recipe language: every key there is, with its type, default and meaning.

``quantship explain`` prints these docstrings and ``quantship schema`` turns these classes into
JSON Schema; there is no second description of the language anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from quantship.data import Source
from quantship.data.source import LocalPath
from quantship.exporters.lowering import LoweringName
from quantship.frozen import Frozen
from quantship.quant.scheme import SCHEMES

MODEL = "model"
"""What a step's ``input`` calls the model that the recipe starts from."""


def _known_scheme(name: str) -> str:
    if name not in SCHEMES:
        raise ValueError(f"unknown scheme '{name}'; known are {', '.join(sorted(SCHEMES))}")
    return name


Positive = Annotated[int, Field(ge=1)]
SchemeName = Annotated[
    str, AfterValidator(_known_scheme), Field(json_schema_extra={"enum": sorted(SCHEMES)})
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


class Model(Frozen):
    """Where the model comes from: exactly one of ``path``, ``hub`` and ``tiny``.

    A plain string stands for a local directory where one of that name exists, else for a Hub id.
    """

    path: LocalPath | None = None
    """Local Hugging Face directory (config.json, safetensors, tokenizer)."""
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$", max_length=96)
    """Hub id, as ``HuggingFaceTB/SmolLM2-135M-Instruct``."""
    revision: str = "main"
    """Branch, tag or commit of the Hub model; resolved to a commit before anything is reused."""
    tiny: TinyModel | None = None
    """A small model with random weights, to be trained from scratch."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return {"path" if _looks_local(value) else "hub": value}

    @model_validator(mode="after")
    def _exactly_one(self) -> Model:
        given = [key for key in ("path", "hub", "tiny") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, hub, tiny; got {given or 'none'}")
        return self


def _looks_local(name: str) -> bool:
    try:
        return name.startswith((".", "/", "~")) or Path(name).is_dir()
    except OSError:  # longer than a path may be
        return False


class Data(Frozen):
    """What to train and to evaluate on; every source ends as templated, tokenized chat messages."""

    train: tuple[Source, ...] = ()
    """Sources to train on, read one after the other and shuffled together."""
    eval: tuple[Source, ...] = Field(min_length=1)
    """Sources to evaluate on, in order."""
    max_length: Positive = 512
    """Longest sequence in tokens. Longer chats are left out and counted; running text is split."""
    chat_template: str | None = None
    """Jinja chat template; None: the tokenizer's own."""
    mask_prompt: bool = True
    """Compute the loss on assistant turns only."""
    packing: bool = False
    """Join training sequences into blocks of max_length instead of padding each to its batch."""


class Step(Frozen):
    """What every step has."""

    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_-]*$")
    """Name that later steps and the report use: small letters, digits, - and _. Default: the stage.

    Three names are taken: ``model``, ``data`` and ``benchmark``.
    """


class TrainingOptions(Step):
    """How to train: transformers' Trainer with AdamW and a cosine schedule."""

    input: str | None = None
    """Step to start from; default: the nearest step before that leaves a float model."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training data."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps, whatever epochs says."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Peak learning rate."""
    batch_size: Positive = 4
    """Sequences in a micro-batch, for each device."""
    gradient_accumulation: Positive = 1
    """Micro-batches in an optimizer step."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Clip the gradient's norm to this."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward and backward; auto: bfloat16 on a GPU that has it, else float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: Positive = 100
    """Optimizer steps between checkpoints to resume from."""
    logging_steps: Positive = 5
    """Optimizer steps between points of the loss curve."""


class FinetuneStep(TrainingOptions):
    """Train the float model."""

    stage: Literal["finetune"]


class QatStep(TrainingOptions):
    """Train under fake quantization, then write the trained integers as a torchao checkpoint."""

    stage: Literal["qat"]
    scheme: SchemeName | None = None
    """Quantization scheme; default: the recipe's."""


class QuantizeStep(Step):
    """Quantize after training (PTQ) and write a torchao checkpoint."""

    stage: Literal["quantize"]
    input: str | None = None
    """Step to quantize; default: the nearest step before that leaves a float model."""
    scheme: SchemeName | None = None
    """Quantization scheme; default: the recipe's."""
    algorithm: Literal["rtn"] = "rtn"
    """rtn: round to nearest, ranges by minimum and maximum."""


class ExportStep(Step):
    """Lower models to ONNX: the checkpoint's own integers, never rounded again."""

    stage: Literal["export"]
    input: tuple[str, ...] | None = None
    """Steps to export, one name or a list; default: the nearest model step before."""
    lowering: LoweringName = "auto"
    """Form of the quantized layers; auto: the fastest exact one for this machine's CPU."""

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


AnyStep = Annotated[
    FinetuneStep | QatStep | QuantizeStep | ExportStep, Field(discriminator="stage")
]


class Evaluation(Frozen):
    """Measured on every model the recipe makes, by the same code on torch and onnxruntime."""

    batch_size: Positive = 4
    """Sequences evaluated at once."""
    limit: Positive | None = None
    """Evaluate on at most this many sequences."""
    parity_sequences: Positive = 16
    """Sequences on which an ONNX model's logits are compared with those of its source."""
    baseline: bool = True
    """Evaluate and benchmark the model as it came, before any step."""


class Benchmark(Frozen):
    """Speed and memory of every model, each in a process of its own, in alternating rounds."""

    batch_size: Positive = 1
    """Sequences at once."""
    prompt_tokens: Positive = 256
    """Length of the synthetic prompt."""
    decode_tokens: Positive = 32
    """Tokens generated one by one after it."""
    rounds: Positive = 3
    """Times that every model has its turn; medians are reported."""
    threads: Positive | None = None
    """Threads of each runtime; None: the physical cores this process may use."""


class Push(Frozen):
    """Upload the finished models to the Hugging Face Hub."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository to push to, as ``me/my-model``."""
    models: tuple[str, ...] = Field(min_length=1)
    """Models to upload, each to a folder of its name: a step's, or its export's (``qat-onnx``)."""
    private: bool = True
    """Create the repository as private."""


class Recipe(Frozen):
    """A run from data to deployable models, start to end."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the run: its report lands in runs/<name>/. Default: the recipe file's name."""
    description: str = ""
    """What the recipe shows, for people."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random: weights, shuffling, dropout, synthetic inputs."""
    model: Model
    """The model to start from."""
    data: Data
    """What to train and to evaluate on."""
    scheme: SchemeName | None = None
    """Quantization scheme of every step that does not name its own."""
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """What to do, in this order."""
    evaluation: Evaluation | None = Evaluation()
    """How to evaluate; null: not at all."""
    benchmark: Benchmark | None = Benchmark()
    """How to benchmark; null: not at all."""
    push: Push | None = None
    """Where to upload; null: nowhere."""
