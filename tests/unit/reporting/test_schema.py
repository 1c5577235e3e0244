from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from quantship.reporting.recovery_schema import Estimate, ShareRecovered
from quantship.reporting.schema import Metrics, ModelRow, Parity, Report, json_schema


def problems(value: Any) -> list[str]:
    """Where a value departs from the schema of reports, and from which rule of it."""
    validator = jsonschema.Draft202012Validator(json_schema())
    return sorted(f"{one.json_path}: {one.validator}" for one in validator.iter_errors(value))


def test_json_round_trip_changes_nothing(report: Report, recovered: Report) -> None:
    assert recovered.recovery
    for one in (report, recovered):
        assert Report.model_validate_json(one.model_dump_json()) == one


def test_a_report_obeys_its_own_schema(report: Report, recovered: Report) -> None:
    for one in (report, recovered):
        assert problems(json.loads(one.model_dump_json())) == []


def test_a_report_from_before_recovery_is_still_read(report: Report) -> None:
    old = json.loads(report.model_dump_json())
    del old["recovery"]
    for row in old["models"]:
        del row["float_source"]
    assert Report.model_validate(old) == report


def test_the_schema_refuses_what_is_not_a_report(report: Report) -> None:
    wrong = json.loads(report.model_dump_json())
    wrong["schema_version"] = 2
    wrong["models"][0]["kind"] = "gguf"
    del wrong["models"][1]["size_bytes"]
    assert problems(wrong) == [
        "$.models[0].kind: enum",
        "$.models[1]: required",
        "$.schema_version: const",
    ]


def test_schema_names_its_dialect_and_version() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["schema_version"]["const"] == 1


def test_every_field_is_documented() -> None:
    schema = json_schema()
    for definition in [schema, *schema["$defs"].values()]:
        for name, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{definition['title']}.{name}"


def test_a_row_has_the_promised_fields(report: Report) -> None:
    row = next(row for row in report.models if row.name == "qat-w8a8-onnx").model_dump()
    promised = "name step kind path scheme size_bytes compression metrics benchmark parity"
    assert set(promised.split()) <= row.keys()
    assert {"perplexity", "token_accuracy"} <= row["metrics"].keys()
    speeds = "runtime prefill_tokens_per_s decode_tokens_per_s latency_ms_p50 latency_ms_p95"
    assert {*speeds.split(), "peak_rss_bytes"} <= row["benchmark"].keys()
    parity = "codes_equal tensors_compared max_abs_logit_diff top1_agreement kl_nats"
    assert set(parity.split()) <= row["parity"].keys()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(report: Report, number: float) -> None:
    with pytest.raises(ValidationError):
        Metrics(perplexity=number, token_accuracy=0.5, mean_loss=1.0, num_tokens=1)
    for field in ("recipe", "data"):
        content = {**dict(report), field: {"deep": [{"down": number}]}}
        with pytest.raises(ValidationError, match="finite number"):
            Report.model_validate(content)


def test_equal_codes_of_no_tensors_are_refused() -> None:
    with pytest.raises(ValidationError, match="true of no tensors"):
        Parity(
            reference="qat",
            codes_equal=True,
            tensors_compared=0,
            max_abs_logit_diff=0.0,
            top1_agreement=1.0,
            kl_nats=0.0,
        )


def test_unknown_fields_are_refused(report: Report) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ModelRow.model_validate({**report.models[0].model_dump(), "size_mb": 12})


def test_a_share_is_given_or_its_lack_explained(recovered: Report) -> None:
    found = recovered.recovery[0].recovered.model_dump()
    for wrong in ({"share": None}, {"undefined": "a reason"}):
        with pytest.raises(ValidationError, match="either a share or the reason"):
            ShareRecovered.model_validate(found | wrong)


def test_an_interval_has_its_ends_in_order() -> None:
    with pytest.raises(ValidationError, match="low is above high"):
        Estimate(value=0.5, low=0.6, high=0.4)
