from __future__ import annotations

import pytest

from quantship.runtimes.kinds import class_names, kind_of, places


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "quantship_mlp", "architectures": ["Mlp"]}, "samples"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "texts"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "language"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "language"),
        ({"model_type": "llama", "architectures": []}, "language"),
        ({"model_type": "llama"}, "language"),
        ({}, "language"),
    ],
)
def test_the_architecture_tells_what_a_model_is_for(config: dict[str, object], kind: str) -> None:
    assert kind_of(config) == kind


def test_classes_come_in_the_order_of_their_numbers() -> None:
    names = {str(index): f"c{index}" for index in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)}
    assert class_names({"id2label": names}) == tuple(f"c{index}" for index in range(11))
    assert class_names({}) == ("LABEL_0", "LABEL_1")


def test_classes_are_found_by_name_and_else_by_place() -> None:
    three = ("entailment", "neutral", "contradiction")
    assert places(three, ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")) == (2, 1, 0)
    assert places(three, ("LABEL_0", "LABEL_1", "LABEL_2")) == (0, 1, 2)
    assert places(three, three[:2]) is None
    assert places(three, ("a", "b", "c")) is None
    assert places(("x", "X"), ("x", "y")) is None
