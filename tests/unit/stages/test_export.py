from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quantship import hardware, making
from quantship.errors import ParityError
from quantship.exporters import codes
from quantship.exporters.codes import CodeComparison
from quantship.job import Job
from quantship.quant.scheme import SCHEMES
from quantship.stages import export


def test_a_float_model_has_no_codes_to_compare(
    job: Callable[..., Job], tiny_model_dir: Path
) -> None:
    done = job(export.Settings(lowering="float", target="x86", scheme=None), model=tiny_model_dir)
    facts = export.run(done)
    assert "codes_equal" not in facts
    assert (facts["lowering_reason"], facts["warnings"]) == (
        "a float model has no integers to lower",
        [],
    )
    assert (done.out / "model.onnx").is_file()
    assert (done.out / "genai_config.json").is_file()


@pytest.mark.parametrize("lowering", ["nbits", "integer"])
def test_a_quantized_model_is_exported_to_the_bit(
    lowering: str, job: Callable[..., Job], quantized_dir: Path
) -> None:
    settings = export.Settings.model_validate(
        {"lowering": lowering, "target": "x86", "scheme": SCHEMES["w8a8"]}
    )
    facts = export.run(job(settings, model=quantized_dir))
    assert facts["codes_equal"] is True
    assert facts["tensors_compared"] == 2 * 7 + 1
    assert (facts["lowering"], facts["scheme"]) == (lowering, "w8a8")
    assert facts["lowering_reason"] == "the recipe asks for it; auto is hybrid for x86"
    (slow,) = facts["warnings"]
    assert ("0.65 ×" if lowering == "nbits" else "1.8 ×") in slow
    assert making._advice(facts)[0] == f"{lowering} for x86"


def test_other_integers_than_the_checkpoints_do_not_ship(
    job: Callable[..., Job], quantized_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = CodeComparison(15, ("model.layers.0.mlp.up_proj",))
    monkeypatch.setattr(codes, "compare", lambda model, checkpoint: wrong)
    settings = export.Settings(lowering="nbits", target="x86", scheme=SCHEMES["w8a8"])
    with pytest.raises(ParityError, match=r"1 of 15 matrices .* model\.layers\.0\.mlp\.up_proj"):
        export.run(job(settings, model=quantized_dir))


def test_what_depends_on_this_machine_is_told_and_not_kept(
    job: Callable[..., Job], quantized_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = export.Settings(lowering="hybrid", target="x86-vnni", scheme=SCHEMES["w8a8"])
    facts = export.run(job(settings, model=quantized_dir))
    assert not any("VNNI" in line for line in facts["warnings"])
    for kind, is_wrong in (("x86", True), ("x86-vnni", False)):
        monkeypatch.setattr(hardware, "kind", lambda kind=kind: kind)
        detail, warnings = making._advice(facts)
        assert detail == "hybrid for x86-vnni"
        assert any("wrong on a CPU without VNNI" in line for line in warnings) == is_wrong
    assert making._advice({"metrics": {}}) == ("", ())
