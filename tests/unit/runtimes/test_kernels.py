from __future__ import annotations

import pytest

from quantship.runtimes import kernels


@pytest.mark.parametrize("given", ["uint8", "int8", None])
@pytest.mark.parametrize("weight", ["uint8", "int8"])
def test_only_unsigned_by_signed_saturates_and_only_without_vnni(
    given: str | None, weight: str
) -> None:
    mixed = (given, weight) == ("uint8", "int8")
    assert kernels.saturates(given, weight, is_arm=False, has_vnni=False) == mixed
    assert not kernels.saturates(given, weight, is_arm=False, has_vnni=True)
    assert not kernels.saturates(given, weight, is_arm=True, has_vnni=False)


def test_signed_inputs_are_slow_on_x86_only() -> None:
    assert kernels.has_no_kernel("int8", is_arm=False)
    assert not kernels.has_no_kernel("int8", is_arm=True)
    assert not kernels.has_no_kernel("uint8", is_arm=False)
    assert not kernels.has_no_kernel(None, is_arm=False)


def test_only_nbits_has_accuracy_levels() -> None:
    assert [kernels.multiplies_floats("MatMulNBits", level) for level in (0, 1, 4)] == [
        True,
        True,
        False,
    ]
    assert not kernels.multiplies_floats("MatMulInteger", None)
