from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quantship import load, models
from quantship.errors import QuantshipError
from quantship.mlp.model import Mlp, build_model
from quantship.quant import checkpoint
from quantship.quant.calibration import calibrate
from quantship.quant.convert import convert
from quantship.quant.differences import differing
from quantship.quant.loading import load_online
from quantship.quant.modules import codes_of, prepare_qat
from quantship.quant.scheme import SCHEMES, Scheme
from quantship.quant.tensors import codes_in
from quantship.recipe.rounding_options import Calibration
from quantship.runtimes.base import Classifier
from quantship.runtimes.pytorch import TorchRuntime
from quantship.tasks import likelihood

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (128, 64, 10)
SHAPED = [scheme for scheme in SCHEMES.values() if scheme.weight.group_size != 128]


@pytest.fixture
def model() -> Mlp:
    return build_model(SIZES, seed=0).eval()


@pytest.fixture
def features() -> torch.Tensor:
    return torch.rand((32, SIZES[0]), generator=torch.Generator().manual_seed(0))


def test_it_computes_what_the_plain_layers_compute(model: Mlp, features: torch.Tensor) -> None:
    first, last = model.layers
    expected = last(torch.relu(first(features)))
    assert torch.equal(model(features).logits, expected)
    labels = torch.arange(32) % 10
    loss = torch.nn.functional.cross_entropy(expected, labels)
    assert torch.equal(model(features, labels).loss, loss)


def test_the_seed_decides_the_weights_and_leaves_the_others_alone(model: Mlp) -> None:
    state = torch.random.get_rng_state()
    again, other = build_model(SIZES, seed=0), build_model(SIZES, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, one), (_, same), (_, different) in zip(
        model.named_parameters(), again.named_parameters(), other.named_parameters(), strict=True
    ):
        assert torch.equal(one, same), name
        assert not torch.equal(one, different), name


def test_a_directory_gives_back_the_model(
    model: Mlp, features: torch.Tensor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    assert models.classifies(tmp_path)
    for loaded in (load(tmp_path), models.load_float(tmp_path)):
        assert isinstance(loaded, Mlp)
        assert torch.equal(loaded(features).logits, model(features).logits)


@pytest.mark.parametrize("scheme", SHAPED, ids=lambda scheme: scheme.name)
def test_the_checkpoint_is_the_fake_quantized_model(
    model: Mlp, features: torch.Tensor, scheme: Scheme, tmp_path: Path
) -> None:
    prepare_qat(model, scheme)
    calibrate(model, [features], lambda batch: model(batch), Calibration())
    facts = convert(model, tmp_path)
    assert facts["codes_equal"]
    assert facts["tensors_compared"] == 2
    stored = {name: part.codes for name, part in checkpoint.load_codes(tmp_path).items()}
    assert differing(codes_of(model), stored) == []
    assert torch.equal(load(tmp_path)(features).logits, model(features).logits)
    with pytest.raises(QuantshipError, match="holds a quantized model"):
        models.load_float(tmp_path)


@pytest.mark.parametrize("name", ["w8a8", "w8a16"])
def test_torchao_rounds_its_weights_and_no_bias_on_loading(
    model: Mlp, features: torch.Tensor, name: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    online = load_online(tmp_path, SCHEMES[name])
    assert differing(codes_of(prepare_qat(model, SCHEMES[name])), codes_in(online)) == []
    assert torch.equal(online(features).logits, model(features).logits)


def test_it_has_no_tokenizer_and_needs_none(model: Mlp, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    model.save_pretrained(source)
    out.mkdir()
    models.copy_tokenizer(source, out)
    assert list(out.iterdir()) == []
    assert models.pad_token_id(source) == 0


def test_a_language_model_s_tokenizer_is_copied(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert not models.classifies(tiny_model_dir)
    models.copy_tokenizer(tiny_model_dir, tmp_path)
    copied = models.load_tokenizer(tmp_path)
    assert copied.get_vocab() == models.load_tokenizer(tiny_model_dir).get_vocab()
    assert models.pad_token_id(tiny_model_dir) == copied.pad_token_id


def test_the_evaluation_is_cross_entropy_and_accuracy(
    model: Mlp, features: torch.Tensor, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    runtime = TorchRuntime(tmp_path)
    assert isinstance(runtime, Classifier)
    labels = model(features).logits.argmax(-1)
    labels[:8] = (labels[:8] + 1) % 10
    batches = [
        {"features": features[part], "labels": labels[part]} for part in (slice(0, 5), slice(5, 32))
    ]
    found = likelihood.evaluate(runtime, batches)
    loss = torch.nn.functional.cross_entropy(model(features).logits.double(), labels)
    assert found.metrics["mean_loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert found.metrics["token_accuracy"] == 24 / 32
    assert found.metrics["num_tokens"] == 32
    assert np.array_equal(found.sequences.num_tokens, np.ones(32))
