from __future__ import annotations

import pytest

from quantship.hardware import Gpu
from quantship.quant import gpu_kernels
from quantship.quant.scheme import SCHEMES, LayerFormat, Override, WeightFormat

RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", (8, 6))
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0))
B200 = Gpu("NVIDIA B200", (10, 0))
T4 = Gpu("Tesla T4", (7, 5))
P100 = Gpu("Tesla P100", (6, 0))
PACKED = ["w4a16-g32", "w4a16-g128", "w4a16-g32-linear"]


def linear(name: str) -> LayerFormat:
    return LayerFormat(weight=SCHEMES[name].weight, activation=SCHEMES[name].activation)


@pytest.mark.parametrize(
    ("gpu", "mslk", "kernel"),
    [
        (H100, True, "mslk"),
        (H100, False, "tinygemm"),
        (B200, True, "tinygemm"),  # code for Hopper runs on no later architecture
        (RTX_3090, True, "tinygemm"),
        (RTX_3090, False, "tinygemm"),
        (T4, True, "unpacked"),
        (P100, False, "unpacked"),
    ],
)
def test_packed_codes_have_a_kernel_on_every_gpu(gpu: Gpu, mslk: bool, kernel: str) -> None:
    for name in PACKED:
        found = gpu_kernels.kernel(linear(name), gpu.capability, packed=True, mslk=mslk)
        assert found == kernel
        assert gpu_kernels.kernel(linear(name), gpu.capability, packed=False, mslk=mslk) == "float"


def test_a_group_that_tiles_do_not_take_is_unpacked() -> None:
    format = LayerFormat(weight=WeightFormat(bits=4, group_size=16, scale_dtype="bfloat16"))
    assert gpu_kernels.kernel(format, (8, 6), packed=True, mslk=False) == "unpacked"
    assert gpu_kernels.kernel(format, (9, 0), packed=True, mslk=True) == "mslk"


@pytest.mark.parametrize("name", ["w8a8-symmetric", "w8a8-per-tensor", "w8a8-static"])
def test_codes_times_codes_are_told_from_codes_made_floats(name: str) -> None:
    assert gpu_kernels.kernel(linear(name), (8, 0), packed=True, mslk=True) == "integer"
    assert gpu_kernels.kernel(linear("w8a8"), (8, 0), packed=True, mslk=True) == "float"


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_every_scheme_says_what_it_needs(name: str) -> None:
    for packed in (True, False):
        lines = gpu_kernels.needs(SCHEMES[name], packed=packed)
        assert lines
        asks_for_hopper = any("9.0" in line and "mslk" in line for line in lines)
        assert asks_for_hopper == (packed and name in PACKED)


def test_an_override_counts_as_well() -> None:
    mixed = SCHEMES["w8a8"].model_copy(
        update={"overrides": (Override(layers="*.down_proj", weight=SCHEMES["w4a16-g32"].weight),)}
    )
    assert gpu_kernels.unserved(mixed, RTX_3090, packed=True, mslk=False)
    assert not gpu_kernels.unserved(SCHEMES["w8a8"], RTX_3090, packed=True, mslk=False)


def test_the_3090_is_warned_of_files_that_it_cannot_run_and_told_what_to_do() -> None:
    (line,) = gpu_kernels.unserved(SCHEMES["w4a16-g128"], RTX_3090, packed=True, mslk=True)
    for words in ("RTX 3090", "8.6", "9.0", "mslk", "`packed: false`", "PyTorch's own"):
        assert words in line
    assert not gpu_kernels.unserved(SCHEMES["w4a16-g128"], RTX_3090, packed=False, mslk=False)
    assert not gpu_kernels.unserved(SCHEMES["w4a16-g128"], H100, packed=True, mslk=True)
    (line,) = gpu_kernels.unserved(SCHEMES["w4a16-g128"], H100, packed=True, mslk=False)
    assert "not installed" in line
    (line,) = gpu_kernels.unserved(SCHEMES["w4a16-g128"], None, packed=True, mslk=False)
    assert "on a CPU" in line


def test_an_old_gpu_is_told_of_only_for_what_it_lacks() -> None:
    assert not gpu_kernels.untrained(RTX_3090, compiles=True)
    (line,) = gpu_kernels.untrained(T4, compiles=True)
    assert "bfloat16" in line
    assert len(gpu_kernels.untrained(P100, compiles=True)) == 2
    assert len(gpu_kernels.untrained(P100, compiles=False)) == 1


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("self.size(0) needs to be greater than 16, but got 1"), "`compile: false`"),
        (RuntimeError("cutlass cannot initialize"), "`packed: false`"),
        (AttributeError("'_OpNamespace' 'mslk' object has no attribute 'f8'"), "`packed: false`"),
        (
            ValueError("Cannot use tinygemm int4 kernel with a device of compute capability"),
            "`packed: false`",
        ),
        (
            RuntimeError(
                "CUDA error: no kernel image is available for execution\nCompile with ..."
            ),
            "built for other GPUs",
        ),
    ],
)
def test_a_missing_kernel_is_told_with_card_and_remedy(error: Exception, remedy: str) -> None:
    words = gpu_kernels.missing(error, RTX_3090)
    assert words is not None
    assert "\n" not in words
    assert "NVIDIA GeForce RTX 3090 (compute capability 8.6)" in words
    assert remedy in words
    assert "CPU" in words


def test_other_errors_are_not_explained() -> None:
    for error in (RuntimeError("CUDA out of memory"), ValueError("shapes"), KeyError("x")):
        assert gpu_kernels.missing(error, RTX_3090) is None
