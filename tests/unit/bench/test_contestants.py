from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from quantship.exporters.lowering import reject
from quantship.quant.scheme import SCHEMES


def test_everyone_is_made_after_what_they_are_made_from() -> None:
    from contestants import MODEL, contestants

    names = [one.name for one in contestants()]
    assert len(set(names)) == len(names)
    assert names[0] == MODEL
    for place, one in enumerate(contestants()):
        assert not one.how or one.source in names[:place]


def test_every_lowering_can_carry_its_scheme() -> None:
    from contestants import FORMS

    found = {
        (scheme, form): reject(SCHEMES[scheme], form)
        for scheme, (_, forms) in FORMS.items()  # type: ignore[arg-type]
        for form in forms
    }
    assert found
    assert set(found.values()) == {None}


def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    from contestants import Contestant, Made, _make

    missing = Contestant("peer", "int8", ("gguf", "F32"), packages=("no_such_package",))
    made = _make(missing, tiny_model_dir, {}, tmp_path / "peer")
    assert made.path is None
    assert "no_such_package not installed; pip install" in made.reason
    after = Contestant("after", "int8", ("gguf", "Q8_0"), source="peer")
    assert _make(after, tiny_model_dir, {"peer": made}, tmp_path).reason == "there is no peer"
    assert isinstance(made, Made)


def test_a_peer_that_fails_is_left_out_and_quantship_is_not(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    from contestants import Contestant, Made, _make

    known = {"torch float32": Made(tmp_path / "nowhere")}
    peer = Contestant("peer", "int4", ("builder", "int4"))
    assert _make(peer, tiny_model_dir, known, tmp_path / "peer").path is None
    own = Contestant("own", "int8", ("export", "float", "-"), ours=True)
    with pytest.raises(RuntimeError, match="own could not be made"):
        _make(own, tiny_model_dir, known, tmp_path / "own")


def test_unknown_architectures_have_no_gguf(tiny_model_dir: Path, tmp_path: Path) -> None:
    import gguf_writer

    assert gguf_writer.reject(tiny_model_dir) is None
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text((tiny_model_dir / name).read_text())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3"]}))
    assert "LlamaForCausalLM only" in str(gguf_writer.reject(tmp_path))


@pytest.mark.slow
def test_the_benchmark_measures_a_model_from_end_to_end(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Made, served and exact, each in a process of its own: the float graph and one quantized."""
    import contestants
    import serving
    import tables

    wanted = {contestants.MODEL, contestants.BASE, "torchao w8a8", "quantship w8a8 nbits"}
    everyone = [
        dataclasses.replace(one, serves=one.ours)  # the others take longest, and are no different
        for one in contestants.contestants()
        if one.name in wanted
    ]
    made: dict[str, contestants.Made] = {}
    for one in everyone:
        made[one.name] = contestants._make(one, tiny_model_dir, made, tmp_path / one.name)
    console = Console(file=StringIO(), width=170)
    served, read_bytes_per_s = serving.serve(
        console,
        everyone,
        made,
        vocabulary=288,
        threads=1,
        rounds=2,
        windows=[list(range(4, 104))],
    )
    tables.serving(console, served, read_bytes_per_s)
    tables.exports(console, everyone, made, 1)
    rows = {row.name: row for row in served}
    assert rows.keys() == {one.name for one in everyone if one.ours}
    base, quantized = rows[contestants.BASE], rows["quantship w8a8 nbits"]
    assert quantized.size_bytes < base.size_bytes / 3
    assert quantized.directory_bytes > quantized.size_bytes
    for row in served:
        assert row.perplexity == pytest.approx(base.perplexity, rel=0.02)
        floor_s = row.weight_bytes_per_token / read_bytes_per_s
        assert row.share_of_memory_floor == pytest.approx(floor_s * row.decode_tokens_per_s)
        assert len(row.rounds) == 2
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(name in printed for name in rows)
