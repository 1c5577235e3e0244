"""The classifier: linear layers with ReLU between them, behind transformers' interfaces.

So it is trained, saved, quantized and loaded by the very code that language models take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from quantship.mlp import MODEL_TYPE


class MlpConfig(PreTrainedConfig):
    """Widths from the features to the classes."""

    model_type = MODEL_TYPE

    def __init__(self, sizes: Sequence[int] = (1, 1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = list(sizes)


class Mlp(PreTrainedModel):
    """Features to the logits of classes."""

    config: MlpConfig
    config_class = MlpConfig
    main_input_name = "features"

    def __init__(self, config: MlpConfig) -> None:
        super().__init__(config)
        widths = zip(config.sizes, config.sizes[1:], strict=False)
        self.layers = nn.ModuleList([nn.Linear(before, after) for before, after in widths])
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits of each sample, and the mean loss where there are labels.

        Args:
            features: (samples, sizes[0]).
            labels: int64, (samples,): the class of each.
            attention_mask: Not looked at; batches have one so that samples can be counted.
        """
        hidden = features.to(self.dtype)
        for layer in self.layers[:-1]:
            hidden = F.relu(layer(hidden))
        logits = self.layers[-1](hidden)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """None: there is no vocabulary."""

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.reset_parameters()


def build_model(sizes: Sequence[int], seed: int) -> Mlp:
    """A float32 classifier of these widths with weights drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Mlp(MlpConfig(sizes=sizes, dtype=torch.float32))
