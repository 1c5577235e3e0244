from __future__ import annotations

from pathlib import Path

from datasets import Dataset, Features, List, Value

from quantship.data.digest import digest

ROWS = {"input_ids": [[1, 2, 3], [4]], "labels": [[-100, 2, 3], [4]]}


def saved(path: Path, columns: dict[str, list[list[int]]]) -> Path:
    kinds = Features({name: List(Value("int32")) for name in columns})
    Dataset.from_dict(columns, features=kinds).save_to_disk(str(path))
    return path


def test_a_digest_is_of_tokens_and_labels(tmp_path: Path) -> None:
    whole = digest(saved(tmp_path / "a", ROWS))
    assert whole == digest(saved(tmp_path / "b", dict(reversed(ROWS.items()))))
    others = [
        {**ROWS, "labels": [[-100, -100, 3], [4]]},
        {**ROWS, "input_ids": [[1, 2], [3, 4]]},
        {name: list(reversed(column)) for name, column in ROWS.items()},
    ]
    found = {digest(saved(tmp_path / f"c{place}", one)) for place, one in enumerate(others)}
    assert len({whole, *found}) == 4


def test_a_limit_leaves_the_rest_out(tmp_path: Path) -> None:
    first = {name: column[:1] for name, column in ROWS.items()}
    both = saved(tmp_path / "a", ROWS)
    assert digest(both, 1) == digest(saved(tmp_path / "b", first)) != digest(both)
    assert digest(both, 99) == digest(both)


def test_samples_have_a_digest_too(tmp_path: Path) -> None:
    kinds = Features({"features": List(Value("float32")), "labels": Value("int64")})
    found = set()
    for place, label in enumerate((0, 1)):
        rows = {"features": [[0.5, 1.0]], "labels": [label]}
        path = tmp_path / str(place)
        Dataset.from_dict(rows, features=kinds).save_to_disk(str(path))
        found.add(digest(path))
    assert len(found) == 2
