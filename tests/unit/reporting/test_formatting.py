from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantship.reporting import formatting


@pytest.mark.parametrize(
    "form",
    [
        formatting.megabytes,
        formatting.ratio,
        formatting.percent,
        formatting.number,
        formatting.speed,
        formatting.small,
    ],
)
def test_a_missing_value_is_a_dash(form: object) -> None:
    assert callable(form)
    assert form(None) == "–"


def test_a_change_needs_both_sides() -> None:
    assert formatting.change(None, 1.0) == "–"
    assert formatting.change(1.0, None) == "–"
    assert formatting.change(1.0, 0.0) == "–"


def test_megabytes_are_millions_of_bytes() -> None:
    assert formatting.size(135_800_000) == "135.8 MB"
    assert formatting.size(840_000) == "0.84 MB"
    assert formatting.size(1_420_000_000) == "1,420 MB"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0031, "+0.31 %"), (0.988, "-1.20 %"), (1.0, "+0.00 %"), (0.9999999, "+0.00 %")],
)
def test_a_change_is_signed(value: float, text: str) -> None:
    assert formatting.change(value, 1.0) == text


@given(st.floats(min_value=0, max_value=1))
def test_only_everything_is_one_hundred_per_cent(share: float) -> None:
    assert (formatting.percent(share) == "100.00") == (share == 1)


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_a_number_keeps_three_digits(value: float) -> None:
    shown = float(formatting.number(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=5e-4, abs=5e-4)


@given(st.floats(min_value=1e-12, max_value=1e3))
def test_a_small_difference_never_reads_as_zero(value: float) -> None:
    assert float(formatting.small(value)) > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.8, "42 s"), (59.7, "1 min 00 s"), (3725.0, "1 h 02 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.628, "63 %"), (0.0, "0 %"), (-0.001, "0 %"), (-0.04, "-4 %"), (12.5, "1,250 %")],
)
def test_a_share_may_lie_outside_nothing_and_all(value: float, text: str) -> None:
    assert formatting.share(value) == text


def test_a_minus_is_never_taken_for_a_dash() -> None:
    assert formatting.share_range(0.551, 0.7) == "55–70 %"
    assert formatting.share_range(-0.3, -0.1) == "-30 to -10 %"


def test_a_difference_of_losses_is_signed() -> None:
    assert formatting.nats(0.3184, 0.301, 0.335) == "+0.318 (0.301 to 0.335)"
    assert formatting.nats(-0.0031, -0.0045, 0.0002) == "-0.0031 (-0.0045 to 0.0002)"
