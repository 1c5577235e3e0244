"""The recipe language: every key there is, with its type, default and meaning.

``quantship explain`` prints these docstrings and ``quantship schema`` turns these classes into
JSON Schema; there is no second description of the language anywhere.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from quantship.algorithms import rtn
from quantship.algorithms import table as algorithms
from quantship.data import Source
from quantship.exporters.formats import FormatName
from quantship.exporters.lowering import LoweringName
from quantship.exporters.targets import TargetName
from quantship.frozen import Frozen
from quantship.recipe.gates import Gate
from quantship.recipe.keys import WORD
from quantship.recipe.model_options import STEP_NAME, HubId, Positive
from quantship.recipe.model_options import Distillation as Distillation
from quantship.recipe.model_options import MlpModel as MlpModel
from quantship.recipe.model_options import Model as Model
from quantship.recipe.model_options import Teacher as Teacher
from quantship.recipe.model_options import TinyModel as TinyModel
from quantship.recipe.own_scheme import OwnScheme, SchemeName
from quantship.recipe.rounding_options import Lora, RoundingOptions
from quantship.recipe.search_options import SearchOptions
from quantship.recipe.tracking_options import Tracking
from quantship.tasks import table as tasks

MODEL = "model"
"""What a step's ``input`` calls the model that the recipe starts from."""


class Data(Frozen):
    """What to train and to evaluate on: text, templated and tokenized, or samples to classify."""

    train: tuple[Source, ...] = ()
    """Sources to train on, read one after the other and shuffled together."""
    eval: tuple[Source, ...] = ()
    """Sources to evaluate on, in order."""
    holdout: float | None = Field(default=None, gt=0, lt=1)
    """Share of the records of ``train`` to evaluate on instead, as 0.1, after those of ``eval``.

    What a record says and the recipe's seed decide which ones, so that a record stays on its side
    when files grow or are sorted anew.
    """
    max_length: Positive = 512
    """Longest sequence in tokens. Longer chats are left out and counted; running text is split."""
    chat_template: str | None = None
    """Jinja chat template; None: the tokenizer's own."""
    mask_prompt: bool = True
    """Compute the loss on assistant turns only."""
    packing: bool = False
    """Join training sequences into blocks of max_length instead of padding each to its batch."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Sources to evaluate on, then those to train on."""
        return (*self.eval, *self.train)


class Step(Frozen):
    """What every step has."""

    name: str | None = Field(default=None, pattern=STEP_NAME)
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
    """Sequences in a micro-batch. Several processes share the sequences of an optimizer step, so a
    step is batch_size x gradient_accumulation of them, whatever the number of processes."""
    gradient_accumulation: Positive = 1
    """Micro-batches in an optimizer step; several processes share these first."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Clip the gradient's norm to this."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of forward and backward; auto: bfloat16 on a GPU that has it, else float32."""
    compile: bool = False
    """Train under torch.compile: minutes to begin, then faster steps on a GPU. Codes are rounded as
    ever, outside of what is compiled."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_steps: Positive = 100
    """Optimizer steps between checkpoints to resume from."""
    logging_steps: Positive = 5
    """Optimizer steps between points of the loss curve."""


class FinetuneStep(TrainingOptions):
    """Train the float model."""

    stage: Literal["finetune"]


class QatStep(RoundingOptions, TrainingOptions):
    """Train under fake quantization, then write the trained integers as a torchao checkpoint."""

    stage: Literal["qat"]
    scheme: SchemeName | None = None
    """Quantization scheme: a row of the table, or a name under ``schemes``; default: the recipe's.
    """
    scales: Literal["current", "fixed", "learned"] = "current"
    """Where the weights' scales come from: ``current``: from the weights, anew at each step;
    ``fixed``: from the weights once, before training; ``learned``: from there they are trained
    along (LSQ), and so are static input ranges."""
    lora: Lora | None = None
    """Train adapters only; ``true``: with the defaults. The merged model is what is rounded."""
    output: Literal["quantized", "float"] = "quantized"
    """What is written: the trained integers, or the trained weights as a clean bfloat16 model for
    a later step to quantize or to learn from."""
    distill: Distillation | None = None
    """Learn from a float model's predictions; ``true``: from those of the step's own input."""

    @field_validator("distill", "lora", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        if isinstance(value, bool):
            return {} if value else None
        return value


Algorithm = Annotated[algorithms.Options, Field(discriminator="kind"), WORD]


class QuantizeStep(RoundingOptions, Step):
    """Quantize after training (PTQ) and write a torchao checkpoint."""

    stage: Literal["quantize"]
    input: str | None = None
    """Step to quantize; default: the nearest step before that leaves a float model."""
    scheme: SchemeName | None = None
    """Quantization scheme: a row of the table, or a name under ``schemes``; default: the recipe's.
    """
    algorithm: Algorithm = rtn.Options()
    """How to round: a word, as ``gptq``, or a mapping with options: ``{kind: gptq, damping: 0.1}``.
    """
    bias_correction: bool = False
    """Take the mean error that rounding makes of a layer's output off the layer's bias, where it
    has one."""


class SearchStep(SearchOptions, Step):
    """Choose a format for each layer under a constraint; the step's name is that scheme's name."""

    stage: Literal["search"]
    input: str | None = None
    """Step whose model to look at; default: the nearest step before that leaves a float model."""
    scheme: SchemeName | None = None
    """Scheme that activations, the embedding, the head and overrides come from; default: the
    recipe's."""


class ExportStep(Step):
    """Lower models to ONNX or OpenVINO: the checkpoint's own integers, never rounded again."""

    stage: Literal["export"]
    input: tuple[str, ...] | None = None
    """Steps to export, one name or a list; default: the nearest model step before."""
    format: FormatName = "onnx"
    """Kind of files: onnx, or openvino (OpenVINO IR; pip install "quantship[openvino]")."""
    lowering: LoweringName = "auto"
    """Form of the quantized layers; auto: the fastest exact one for the target."""
    target: TargetName = "this-machine"
    """Machine that the model will run on: this-machine (its CPU), x86 (without VNNI), x86-vnni,
    arm, cuda, or portable (standard operators that other runtimes read too)."""

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


AnyStep = Annotated[
    FinetuneStep | QatStep | QuantizeStep | SearchStep | ExportStep, Field(discriminator="stage")
]


Task = Annotated[tasks.Options, Field(discriminator="task")]


class Evaluation(Frozen):
    """Measured on every model the recipe makes, by the same code on torch and onnxruntime."""

    tasks: tuple[Task, ...] = ()
    """What to measure beside perplexity and token accuracy on ``data.eval``, which always are."""

    batch_size: Positive = 4
    """Sequences evaluated at once."""
    limit: Positive | None = None
    """Evaluate on at most this many sequences."""
    parity_sequences: Positive = 16
    """Sequences on which an ONNX model's logits are compared with those of its source."""
    online: bool = False
    """Also quantize each PTQ step's source while it is loaded, by transformers and torchao and
    without a checkpoint, and compare with the checkpoint: perplexity, and codes to the bit."""
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
    precision: Literal["auto", "stored", "bfloat16"] = "auto"
    """Arithmetic of PyTorch's floats; auto: bfloat16 on a GPU that has it, else as the file says
    (stored)."""
    compile: bool = False
    """Serve PyTorch models that read text under torch.compile, with a KV cache of fixed size: on a
    GPU integer weights are faster than bfloat16 only so."""


class Push(Frozen):
    """Upload the finished models, a model card and the report to the Hugging Face Hub."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository to push to, as ``me/my-model``."""
    models: tuple[str, ...] = Field(min_length=1)
    """Models to upload: a step's, or its export's (``qat-onnx``)."""
    layout: Literal["one", "several", "folders"] = "one"
    """Where they go: ``one``: a checkpoint to the top of the repository, ONNX models to ``onnx``,
    under the names that transformers.js gives them; ``several``: each model to a repository of its
    own, as ``me/my-model-qat``; ``folders``: each to a folder of its name in one repository."""
    private: bool = True
    """Create the repository as private; one that is there stays as it is."""
    revision: str = Field(default="main", pattern=r"^[\w][\w./-]*$")
    """Branch to commit to; it is created from ``main`` where it is missing."""
    tag: str | None = Field(default=None, pattern=r"^[\w][\w./-]*$")
    """Tag to put on the commit."""
    license: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """License of what is uploaded, by the Hub's name for it (``apache-2.0``); default: the base
    model's. Must be given where that is ``other`` or not known: it says that you may share it."""
    base_model: HubId | None = None
    """Hub id of the base model, for the model card of a recipe that starts from a directory."""


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
    schemes: dict[str, OwnScheme] = Field(default_factory=dict)
    """Quantization schemes of the recipe's own by their names, beside the rows of the table:
    ``schemes: {mine: {base: w4a16-g32, overrides: [{layers: "*.down_proj", weight: {bits: 8}}]}}``.
    """
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """What to do, in this order. Where a step wants one value, a list makes a step of each."""
    evaluation: Evaluation | None = Evaluation()
    """How to evaluate; null: not at all."""
    benchmark: Benchmark | None = Benchmark()
    """How to benchmark; null: not at all."""
    tracking: Tracking | None = None
    """Trackers that are told of trainings; null: none."""
    gates: tuple[Gate, ...] = ()
    """Limits that models have to keep to: where one fails, nothing is pushed (exit code 4)."""
    push: Push | None = None
    """Where to upload; null: nowhere."""
