"""What ``report.json`` holds, field by field; ``schema.json`` beside it is made from this file.

What it holds of QAT's worth is in ``recovery_schema``, of how models were quantized and which is
the best in ``ranking_schema``.

Numbers that were not measured are null, never NaN or infinite. Add fields freely; raise
``schema_version`` when one is renamed, removed or changes its meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from quantship.reporting.evidence_schema import Evidence, Gate, TaskResult
from quantship.reporting.layers_schema import Layers
from quantship.reporting.ranking_schema import Front, Quantization, Ranking
from quantship.reporting.recovery_schema import Recovery
from quantship.reporting.routes import Route
from quantship.reporting.search_schema import Search
from quantship.reporting.section import Amount, Count, Section, Share


class Environment(Section):
    """The machine and the libraries that made the numbers."""

    cpu_model: str
    """CPU as it names itself."""
    instruction_sets: list[str]
    """CPU extensions that decide the speed of integer kernels, as ``avx2``, ``avx512_vnni``."""
    num_cpus: Count
    """Logical CPUs this process may use."""
    memory_bytes: Count
    """Main memory in bytes."""
    gpu: str | None
    """GPU as it names itself; null: none was used."""
    os: str
    """Operating system and its version."""
    python: str
    """Python version."""
    versions: dict[str, str]
    """Versions of the libraries, by distribution name."""


class Metrics(Section):
    """Accuracy on the evaluation data, over tokens whose label is not -100."""

    perplexity: Annotated[float, Field(gt=0)]
    """exp(mean_loss)."""
    token_accuracy: Share
    """Share of tokens whose most likely prediction is the label, from 0 to 1."""
    mean_loss: float
    """Negative log-likelihood in nats a token: the sum over all tokens by their number."""
    num_tokens: Count
    """Tokens that were predicted."""


class Benchmark(Section):
    """Speed and memory, medians over rounds, on synthetic input of a fixed shape."""

    runtime: Literal["torch", "torchao", "onnxruntime", "openvino"]
    """What ran the model."""
    prefill_tokens_per_s: Amount
    """Prompt tokens processed a second, over the whole batch."""
    decode_tokens_per_s: Amount
    """Tokens generated a second after the prompt, over the whole batch."""
    latency_ms_p50: Amount
    """Median time of one decoded token, in milliseconds."""
    latency_ms_p95: Amount
    """95th percentile of the time of one decoded token, in milliseconds."""
    device: Literal["cpu", "cuda"] | None = None
    """Where it ran; null: not recorded."""
    peak_rss_bytes: Count
    """Peak resident memory of the process that ran this model alone, in bytes."""
    peak_gpu_bytes: Count | None = None
    """Most bytes of tensors that PyTorch held on the GPU; null: it ran on a CPU, or on a runtime
    that does not tell."""
    batch_size: Count
    """Sequences at once."""
    prompt_tokens: Count
    """Length of the prompt, in tokens."""
    decode_tokens: Count
    """Tokens generated one by one after it."""
    threads: Count
    """Threads of the runtime."""
    rounds: Count
    """Times the model had its turn."""
    weight_bytes_per_token: Count | None = None
    """Bytes of the stored weights that one decoded token must read: all, except tables of which it
    reads a row, as an embedding that is not the output head; the KV cache is not counted; null: not
    known."""
    read_bytes_per_s: Amount | None = None
    """Bytes a second that all threads read from memory together; null: the model was on a GPU."""
    share_of_memory_floor: Amount | None = None
    """Time that reading these bytes takes, by the median time of a token: 1 is as fast as memory
    allows, and more is read from caches; null: not known."""
    warnings: list[str] = Field(default_factory=list)
    """Why results or speeds on this machine are not those that the model was made for."""


class Parity(Section):
    """How far a model is from the one it was made from."""

    reference: str
    """Name of the model it is compared with."""
    codes_equal: bool | None
    """Whether every integer code and scale is equal to the bit; null: there are no codes."""
    tensors_compared: Count
    """Quantized tensors whose codes and scales were compared."""
    max_abs_logit_diff: Amount
    """Largest absolute difference of any logit."""
    top1_agreement: Share
    """Share of positions where both find the same token most likely, from 0 to 1."""
    kl_nats: float
    """Mean Kullback-Leibler divergence from the reference's predictions, in nats a token."""

    @model_validator(mode="after")
    def _not_vacuous(self) -> Parity:
        if self.codes_equal and self.tensors_compared == 0:
            raise ValueError("codes_equal is true of no tensors; say null where there are no codes")
        return self


class ModelRow(Section):
    """One model on one runtime: one row of the report's table."""

    name: str
    """Name of the model in this report."""
    step: str
    """Step of the recipe that made it."""
    kind: Literal["float", "torchao", "onnx", "openvino"]
    """Form of the files: float safetensors, torchao checkpoint, ONNX or OpenVINO of any scheme."""
    path: str
    """Directory or file, relative to the artifacts root."""
    scheme: str | None = None
    """Quantization scheme; null: not quantized."""
    quantization: Quantization | None = None
    """How its integers were found; null: not quantized, by training, or not recorded."""
    method: str | None = None
    """What quantization-aware training did beyond plain training, in words, as ``distill``; empty:
    nothing; null: it was not trained so."""
    float_source: str | None = None
    """Float model, as a checkpoint, that its weights come from; null: not recorded."""
    size_bytes: Count
    """Bytes of the weights on disk."""
    compression: Amount | None = None
    """Size of the float32 model in the same kind of file, divided by ``size_bytes``."""
    metrics: Metrics | None = None
    """Accuracy; null: not evaluated."""
    tasks: dict[str, TaskResult] = Field(default_factory=dict)
    """What it made of each task that it was evaluated on, by the task's name; ``data`` is the
    recipe's own evaluation data."""
    benchmark: Benchmark | None = None
    """Speed and memory; null: not benchmarked."""
    parity: Parity | None = None
    """Distance from the model it was made from; null: not compared."""
    lowering: str | None = None
    """Form of the quantized layers in ONNX; null: not an ONNX model, or not quantized."""
    lowering_reason: str | None = None
    """Why this form, for this target; null: not an ONNX model, or not quantized."""
    target: str | None = None
    """Machine that an ONNX model was lowered for; null: not an ONNX model, or not quantized."""
    warnings: list[str] = Field(default_factory=list)
    """What makes the model slow, large or inexact on its target, known beforehand."""
    inexact: str | None = None
    """Why its results are wrong on this machine; null: nothing is known against them."""
    activation_arithmetic: str | None = None
    """How this runtime computes with the activations; null: in float."""
    hardware_needs: list[str] = Field(default_factory=list)
    """What hardware it needs, in sentences; empty: nothing beyond what its runtime needs."""
    group: str
    """What the row is to the run, as ``baseline``, ``finetune``, ``ptq``, ``qat``; one colour."""


class EvaluationData(Section):
    """What the models of a run were evaluated on; numbers of other data are not to be compared."""

    digest: str
    """SHA-256 over the tokens (or features) and labels of every sequence, in order."""
    num_sequences: Count
    """Sequences, or samples."""
    num_tokens: Count
    """Tokens that were predicted."""


class TrainingPoint(Section):
    """One logged point of a training."""

    step: Count
    """Optimizer steps done."""
    loss: float
    """Mean training loss since the point before, in nats a token."""
    learning_rate: float | None = None
    """Learning rate at this step."""
    grad_norm: float | None = None
    """Norm of the gradient before clipping; null: not finite or not logged."""


class TrainingCurve(Section):
    """One training: a fine-tuning or a quantization-aware training."""

    step: str
    """Step of the recipe."""
    stage: str
    """Stage of the step, as ``finetune`` or ``qat``."""
    scheme: str | None = None
    """Scheme it trained under; null: float."""
    points: list[TrainingPoint]
    """The loss curve, in order."""
    seconds: Amount
    """Wall-clock seconds of training."""
    tokens_per_s: Amount
    """Training tokens a second, padding left out."""
    resumed_from: int | None = None
    """Optimizer step of the checkpoint it resumed from; null: it ran in one go."""


class Report(Section):
    """Everything one run found out."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    quantship_version: str
    """Version of quantship that made the report."""
    recipe: dict[str, JsonValue]
    """The recipe as it ran: profile and overrides applied, defaults filled in."""
    name: str
    """Name of the run."""
    created: AwareDatetime
    """When the report was made, with its time zone."""
    duration_s: Amount
    """Wall-clock seconds of the run, reused steps counting nothing."""
    environment: Environment
    """The machine and the libraries."""
    data: dict[str, JsonValue]
    """Facts of the data stage: records, tokens, digests, records left out for their length."""
    evaluation_data: EvaluationData | None = None
    """What the models were evaluated on; null: they were not, or it was not recorded."""
    models: list[ModelRow]
    """One row a model and runtime, in the order of the recipe."""
    training: list[TrainingCurve]
    """One entry a training, in the order of the recipe."""
    ranking: Ranking | None = None
    """The quantized models, best first; null: fewer than two were evaluated."""
    fronts: list[Front] = Field(default_factory=list)
    """Pareto fronts of perplexity against size, and against decode speed where it was measured."""
    recovery: list[Recovery] = Field(default_factory=list)
    """One entry a QAT model that has a PTQ twin and was evaluated, in the order of the recipe."""
    searches: list[Search] = Field(default_factory=list)
    """One entry a search for mixed precision, in the order of the recipe."""
    routes: list[Route] = Field(default_factory=list)
    """One entry for each other route to a model's integers that the recipe has tried."""
    evidence: Evidence | None = None
    """Tasks, and how models compare on them; null: nothing was evaluated."""
    gates: list[Gate] = Field(default_factory=list)
    """The recipe's limits, and whether they hold."""
    layers: Layers | None = None
    """Rounding errors and static input ranges, layer by layer; null: there are none."""
    notes: list[str]
    """What a reader should know before trusting a number."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``report.json``."""
    schema = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
