"""What all tests share: no network, quiet libraries, and a tiny model that is never downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Libraries read these when they are imported, which no test module has done yet.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.update(
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    ORT_DISABLE_TELEMETRY="1",
    MPLBACKEND="agg",
    OMP_NUM_THREADS="2",
    MKL_NUM_THREADS="2",
)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = Path(os.environ.get("QUANTSHIP_DATA", REPOSITORY.parent / "shared" / "data"))
OFFLINE = os.environ["HF_HUB_OFFLINE"] != "0"


@pytest.fixture(scope="session", autouse=True)
def _own_folders_are_roots(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let recipes read what tests write, and the data sets; in their own processes as well."""
    folders = (tmp_path_factory.getbasetemp(), SHARED_DATA)
    os.environ["QUANTSHIP_ROOTS"] = os.pathsep.join(map(str, folders))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run; give network tests their sockets."""
    for item in items:
        if item.get_closest_marker("network"):
            item.add_marker("enable_socket")
            if OFFLINE:
                item.add_marker(pytest.mark.skip(reason="offline; set HF_HUB_OFFLINE=0"))
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="PyTorch finds no CUDA device"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the public data sets; skips the test where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no data sets at {SHARED_DATA}; set QUANTSHIP_DATA to their folder")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def unstopped() -> Iterator[None]:
    """Let a stop that one test has asked for end with it, as it would with a process."""
    yield
    from quantship import stopping

    stopping._state = stopping._State()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: on tiny matrices, several spend their time waiting."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a chat template."""
    from quantship.tiny import build_tokenizer

    return build_tokenizer(max_length=256)


@pytest.fixture
def tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A float32 Llama of 2 layers, fresh for each test and always of the same weights."""
    return _build_model(tiny_tokenizer)


@pytest.fixture(scope="session")
def tiny_model_dir(
    tiny_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model and its tokenizer, saved; not to be written to."""
    path = tmp_path_factory.mktemp("tiny") / "model"
    _build_model(tiny_tokenizer).save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


def _build_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    from quantship.recipe.language import TinyModel
    from quantship.tiny import build_model

    dimensions = TinyModel(hidden_size=128, num_layers=2, num_heads=4, num_kv_heads=2)
    return build_model(dimensions, tokenizer, seed=0)
