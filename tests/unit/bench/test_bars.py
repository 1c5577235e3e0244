from __future__ import annotations

from typing import Any

import pytest


def served(
    name: str,
    family: str = "float32",
    ours: bool = True,
    prefill: float = 100.0,
    decode: float = 10.0,
    size: int = 1000,
    perplexity: float | None = None,
) -> Any:
    from serving import Served

    return Served(
        name=name,
        family=family,  # type: ignore[arg-type]
        ours=ours,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=decode,
        spread=0.0,
        size_bytes=size,
        directory_bytes=size,
        peak_rss_bytes=1,
        weight_bytes_per_token=size,
        share_of_memory_floor=0.5,
        perplexity=perplexity,
        last_only=False,
        rounds=(),
    )


def rows(**perplexities: float) -> list[Any]:
    from bars import GENAI, Q4_0, Q8_0
    from contestants import BASE

    return [
        served(BASE, perplexity=perplexities.get("base")),
        served("decoder", "int8", prefill=50, decode=30, size=250),
        served("both", "int8", prefill=140, decode=25, size=260, perplexity=perplexities.get("q8")),
        served("prompts", "int8", prefill=500, decode=5, size=270),
        served(
            "small", "int4", prefill=110, decode=31, size=160, perplexity=perplexities.get("q4")
        ),
        served(Q8_0, "int8", ours=False, prefill=70, decode=20),
        served(Q4_0, "int4", ours=False, prefill=100, decode=62, perplexity=30.0),
        served(GENAI, "int4", ours=False, prefill=90, decode=28, perplexity=31.0),
    ]


def test_every_figure_belongs_to_a_bar_and_every_bar_has_one() -> None:
    import bars
    from contestants import Made, contestants

    everyone = contestants()
    made = {one.name: Made(None, seconds=3.0, peak_rss_bytes=500) for one in everyone}
    figures = bars.serving_figures(rows(base=25.0, q8=25.1, q4=29.0))
    figures |= bars.export_figures(everyone, made, 400)
    named = {judgement.bar.what for judgement in bars.judge(figures, "") if judgement.figure}
    # The Q8_0 here has no perplexity.
    assert named == {bar.what for bar in bars.BARS} - {f"int8: perplexity by {bars.Q8_0}"}
    assert figures["export: peak memory by float32 weights"] == pytest.approx(1.25)


def test_one_model_has_to_reach_both_bars_of_speed() -> None:
    import bars

    assert bars.champion(rows(), "int8").name == "both"
    figures = bars.serving_figures(rows())
    assert figures["int8: decode by float32 ONNX"] == pytest.approx(2.5)
    assert figures["int8: prefill by float32 ONNX, the same model"] == pytest.approx(1.4)
    assert figures["int8: bytes by float32 ONNX"] == pytest.approx(0.26)
    assert figures[f"int8: prefill by {bars.Q8_0}"] == pytest.approx(2.0)


def test_a_form_that_ruins_the_model_is_seen() -> None:
    import bars

    ruined = served("ruined", "int8", perplexity=1e6)
    figures = bars.serving_figures([*rows(base=25.0, q8=25.1), ruined])
    assert figures["int8: perplexity by float32 ONNX, best form"] == pytest.approx(1.004)
    assert figures["int8: perplexity by float32 ONNX, worst form"] == pytest.approx(4e4)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    import bars

    without = [row for row in rows() if row.name != bars.Q4_0]
    judged = {one.bar.what: one for one in bars.judge(bars.serving_figures(without), "no peer")}
    assert judged[f"int4: decode by {bars.Q4_0}"].verdict == "not measured: no peer"
    assert judged["int8: perplexity by float32 ONNX, best form"].figure is None
    assert judged["int4: decode by float32 ONNX"].verdict == "met"


@pytest.mark.parametrize(
    ("at_least", "strict", "met"),
    [
        (True, False, [False, True, True]),
        (True, True, [False, False, True]),
        (False, False, [True, True, False]),
        (False, True, [True, False, False]),
    ],
)
def test_a_limit_is_reached_from_its_side(at_least: bool, strict: bool, met: list[bool]) -> None:
    from bars import Bar

    bar = Bar("", 1.0, at_least=at_least, strict=strict)
    assert [bar.is_met(figure) for figure in (0.9, 1.0, 1.1)] == met
    assert (bar.demand[0] in "≥>") == at_least


def test_a_figure_without_a_bar_is_a_mistake() -> None:
    import bars

    with pytest.raises(AssertionError, match="int9"):
        bars.judge({"int9: decode": 1.0}, "")
