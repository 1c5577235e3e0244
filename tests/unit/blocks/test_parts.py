from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from quantship.blocks.parts import CodesDigest, Part, Parts, digest_of
from quantship.quant.container import Writer, read_header, spec_of, write
from quantship.quant.numerics import Codes

TENSORS = {
    "wide": torch.arange(6, dtype=torch.float32).view(2, 3),
    "narrow": torch.arange(5, dtype=torch.int8),
    "half": torch.ones(3, 1, dtype=torch.bfloat16),
    "single": torch.tensor(2.5),
    "none": torch.empty(0, 4),
}


def written(parts: Parts, key: str = "model.layers.0") -> Part:
    def fill(file: Writer) -> dict[str, str]:
        for name, tensor in TENSORS.items():
            file.put(name, tensor)
        return {"layer": "digest"}

    specs = {name: spec_of(tensor) for name, tensor in TENSORS.items()}
    return parts.write(key, specs, {"format": "pt"}, fill, notes=("so it is",), corrected=("b",))


def test_a_part_is_found_as_it_was_written(tmp_path: Path) -> None:
    part = written(Parts(tmp_path / "new", "a job"))
    found = Parts(tmp_path / "new", "a job").find("model.layers.0")
    assert found == part
    assert (part.about.notes, part.about.corrected) == (("so it is",), ("b",))
    assert part.about.codes == {"layer": "digest"}
    with safe_open(part.path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, tensor in TENSORS.items():
            read = file.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_another_jobs_part_is_none(tmp_path: Path) -> None:
    written(Parts(tmp_path, "a job"))
    assert Parts(tmp_path, "another").find("model.layers.0") is None
    assert Parts(tmp_path, "a job").find("model.layers.1") is None


@pytest.mark.parametrize("harm", ["truncated", "one bit", "no tensors", "no about", "half about"])
def test_what_is_broken_is_none(tmp_path: Path, harm: str) -> None:
    parts = Parts(tmp_path, "a job")
    path = written(parts).path
    whole, about = path.read_bytes(), path.with_suffix(".json")
    if harm == "truncated":
        path.write_bytes(whole[:-1])
    elif harm == "one bit":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif harm == "no tensors":
        path.unlink()
    elif harm == "no about":
        about.unlink()
    else:
        about.write_text(about.read_text()[:20])
    assert parts.find("model.layers.0") is None
    assert parts.find(written(parts).path.stem) is not None


def test_a_part_that_is_being_written_again_is_none_until_it_is_done(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "a job")
    written(parts)

    def fail(file: Writer) -> dict[str, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.write("model.layers.0", {}, {}, fail)
    assert parts.find("model.layers.0") is None


def test_a_file_is_laid_out_as_safetensors_lays_it_out(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write(tmp_path / "ours", TENSORS, {"format": "pt"})
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    ours, theirs = read_header(tmp_path / "ours"), read_header(tmp_path / "theirs")
    assert ours == theirs
    start = ours.size_bytes
    bodies = [(tmp_path / name).read_bytes()[start:] for name in ("ours", "theirs")]
    assert bodies[0] == bodies[1]


def test_rows_that_come_one_after_the_other_make_the_whole(tmp_path: Path) -> None:
    numbers = torch.randn(10, 4)
    with Writer(tmp_path / "file", {"x": spec_of(numbers)}, {}) as file:
        for start in (7, 0, 3):
            file.put("x", numbers[start : start + (4 if start else 3)], start * 16)
    with safe_open(tmp_path / "file", "pt") as read:
        assert torch.equal(read.get_tensor("x"), numbers)
    assert json.loads(json.dumps(read_header(tmp_path / "file").metadata)) == {}


def some(seed: int, *, zero: bool) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    codes_OI = torch.randint(-8, 8, (6, 8), generator=generator, dtype=torch.int8)
    zero_OG = torch.full((6, 2), 3, dtype=torch.int8) if zero else None
    return Codes(codes_OI, torch.rand(6, 2, generator=generator), zero_OG)


@pytest.mark.parametrize("zero", [False, True])
def test_digests_are_of_the_numbers_however_they_are_given(zero: bool) -> None:
    codes = some(0, zero=zero)
    parts = CodesDigest()
    for rows in (slice(0, 1), slice(1, 6)):
        parts.add(Codes(*(part if part is None else part[rows] for part in codes)))  # type: ignore[arg-type]
    assert parts.hexdigest() == digest_of(codes)
    assert digest_of(some(1, zero=zero)) != digest_of(codes)
    assert digest_of(codes._replace(scale_OG=codes.scale_OG.nextafter(torch.ones(1)))) != (
        digest_of(codes)
    )


def test_zero_points_of_zero_are_none() -> None:
    codes = some(0, zero=False)
    assert digest_of(codes._replace(zero_OG=torch.zeros(6, 2))) == digest_of(codes)
    assert digest_of(some(0, zero=True)) != digest_of(codes)
